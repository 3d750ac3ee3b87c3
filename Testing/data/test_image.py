"""Reading refuses what is not a sound volume, in a sentence that names it; writing leaves all files or none."""

import gc
import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from TeachFormerCore.data.dicom_lengths import dicom_fault
from TeachFormerCore.data.image import (
    OutputFiles,
    check_writable,
    image_like,
    read_finite_image,
    read_image,
    same_bits,
    voxels,
)
from TeachFormerCore.data.integrity import non_finite_voxels
from TeachFormerCore.errors import InputError

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")


@pytest.fixture
def volume() -> sitk.Image:
    array = np.random.default_rng(0).normal(size=(12, 14, 16)).astype(np.float32)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.5, 2.0, 3.25))
    image.SetOrigin((-10.0, 20.0, 5.0))
    image.SetDirection((0, -1, 0, 1, 0, 0, 0, 0, 1))
    return image


def write(image: sitk.Image, path: Path, *, compressed: bool = True) -> Path:
    sitk.WriteImage(image, str(path), useCompression=compressed)
    return path


@pytest.mark.parametrize("ending", [*ENDINGS, ".mhd"])
@pytest.mark.parametrize("folder", ["plain", "with space", "Größe 病例"])
def test_a_sound_volume(tmp_path, volume, ending, folder):
    (tmp_path / folder).mkdir()
    image = read_image(write(volume, tmp_path / folder / f"Bild ä{ending}"))
    assert np.array_equal(voxels(image), voxels(volume))
    assert np.allclose(image.GetSpacing(), volume.GetSpacing())
    assert np.allclose(image.GetOrigin(), volume.GetOrigin())
    assert np.allclose(image.GetDirection(), volume.GetDirection())


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("share", [0.97, 0.5, 0.05])
def test_a_truncated_file(tmp_path, volume, ending, compressed, share):
    path = write(volume, tmp_path / f"cut{ending}", compressed=compressed)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match=r"cut\.") as error:
        read_image(path)
    assert "cut off" in str(error.value) or "truncated" in str(error.value)


@pytest.mark.parametrize("missing", [1, 4, 9])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_few_bytes_missing(tmp_path, volume, ending, missing):
    path = write(volume, tmp_path / f"cut{ending}")
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(InputError, match="cut off"):
        read_image(path)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha", ".mhd"])
def test_a_damaged_compressed_file(tmp_path, volume, ending):
    """As a download leaves it that was given its full size first: zeros from the middle on."""
    path = write(volume, tmp_path / f"torn{ending}")
    data = path.with_suffix(".zraw") if ending == ".mhd" else path
    whole = data.read_bytes()
    data.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    with pytest.raises(InputError, match=r"torn\."):
        read_image(path)


def test_gzip_written_in_parts_or_with_more_behind(tmp_path, volume):
    """Complete all the same: several gzip members, or bytes after the last voxel."""
    plain = write(volume, tmp_path / "plain.nii").read_bytes()
    parts = tmp_path / "parts.nii.gz"
    parts.write_bytes(gzip.compress(plain[:5000]) + gzip.compress(plain[5000:]))
    more = tmp_path / "more.nii.gz"
    more.write_bytes(gzip.compress(plain + bytes(100)))
    unzipped = tmp_path / "not_zipped.nii.gz"
    unzipped.write_bytes(plain)
    for path in (parts, more, unzipped):
        assert np.array_equal(voxels(read_image(path)), voxels(volume))
    parts.write_bytes(gzip.compress(plain[:5000]) + gzip.compress(plain[5000:-8]))
    unzipped.write_bytes(plain[:-8])
    for path in (parts, unzipped):
        with pytest.raises(InputError, match=f"cut off: it holds {len(plain) - 8} of {len(plain)} bytes"):
            read_image(path)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_a_flipped_bit_is_never_read(tmp_path, ending, kind):
    """Most flips in a compressed stream leave its length as it is, and ITK stops before the checksum."""
    array = np.random.default_rng(0).normal(0, 300, (6, 20, 20)).astype(kind)
    path = write(sitk.GetImageFromArray(array), tmp_path / f"flip{ending}")
    whole = path.read_bytes()
    for seed in range(25):
        random = np.random.default_rng(seed)
        content = bytearray(whole)
        content[random.integers(len(whole) // 2, len(whole) - 8)] ^= 1 << random.integers(8)
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"flip\."):
            read_finite_image(path)
        assert non_finite_voxels(path) == 0


def test_a_flipped_bit_in_a_second_member_and_bytes_behind_the_last(tmp_path, volume):
    plain = write(volume, tmp_path / "plain.nii").read_bytes()
    first, second = gzip.compress(plain[:5000]), gzip.compress(plain[5000:])
    path = tmp_path / "parts.nii.gz"
    path.write_bytes(first + second + bytes(512))
    assert np.array_equal(voxels(read_image(path)), voxels(volume))
    flipped = bytearray(second)
    flipped[len(second) // 2] ^= 4
    for content in (first + flipped, first + second + b"something else"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"parts\.nii\.gz is cut off or damaged"):
            read_image(path)


@pytest.mark.parametrize("compressed", [True, False])
def test_values_that_are_not_finite_are_found_wherever_they_lie(tmp_path, compressed):
    """The file is read in pieces that end in the middle of a voxel."""
    array = np.zeros((40, 41, 43), np.float64)
    places = np.random.default_rng(1).choice(array.size, 500, replace=False)
    array.flat[places] = np.nan
    array.flat[[0, -1]] = np.inf
    path = write(sitk.GetImageFromArray(array), tmp_path / ("x.nii.gz" if compressed else "x.nii"))
    count = int((~np.isfinite(array)).sum())
    assert non_finite_voxels(path) == count
    with pytest.raises(InputError, match=f"holds {count} voxels that are NaN or infinite"):
        read_finite_image(path)


def test_swapped_bytes(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    array = np.random.default_rng(0).normal(size=(7, 8, 9)).astype(np.float32)
    array[1, 2, 3] = np.nan
    path = tmp_path / "other.nii"
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4), nibabel.Nifti1Header(endianness=">")), path)
    assert np.allclose(voxels(read_image(path)), np.nan_to_num(array.T))
    assert non_finite_voxels(path) == 1
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="cut off"):
        read_image(path)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha"])
@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "does not exist"), (b"", r"is empty \(0 bytes\)"), (b"Patient 7: see letter.\n" * 40, "could not be read")],
)
def test_what_is_no_image(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_image(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_other_dimensions(tmp_path, volume):
    flat = write(volume[:, :, 3], tmp_path / "flat.nrrd")
    with pytest.raises(InputError, match=r"flat\.nrrd is 2D"):
        read_image(flat)
    film = write(sitk.JoinSeries([volume, volume]), tmp_path / "film.nii.gz")
    with pytest.raises(InputError, match=r"film\.nii\.gz is 4D"):
        read_image(film)
    vectors = write(sitk.Compose(volume, volume, volume), tmp_path / "vectors.nii.gz")
    with pytest.raises(InputError, match=r"vectors\.nii\.gz has 3 values per voxel"):
        read_image(vectors)
    pair = write(sitk.RealAndImaginaryToComplex(volume, volume), tmp_path / "complex.nrrd")
    with pytest.raises(InputError, match=r"complex\.nrrd has (complex voxels|2 values per voxel)"):
        read_image(pair)


def test_single_slices(tmp_path, volume):
    one = write(volume[:, :, 3:4], tmp_path / "one.nii.gz")
    with pytest.raises(InputError, match=r"one\.nii\.gz holds a single slice \(16 x 14 x 1 voxels\)"):
        read_image(one)
    assert np.array_equal(voxels(read_image(one, single_slice=True)), voxels(volume)[3:4])
    flat = write(volume[:, :, 3], tmp_path / "flat.nrrd")
    assert np.array_equal(voxels(read_image(flat, single_slice=True)), voxels(volume)[3:4])
    with pytest.raises(InputError, match="4D"):
        read_image(write(sitk.JoinSeries([volume, volume]), tmp_path / "film.nii.gz"), single_slice=True)


def test_slope_and_intercept_are_applied(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4))
    image.header.set_slope_inter(0.002, 1)
    nibabel.save(image, tmp_path / "pet.nii.gz")
    assert np.allclose(voxels(read_image(tmp_path / "pet.nii.gz")).max(), 59 * 0.002 + 1)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mha"])
def test_not_a_number_is_counted_where_itk_hides_it(tmp_path, volume, ending):
    array = voxels(volume).copy()
    array[2, 3, 4], array[5, 6, 7], array[0, 0, 0] = np.nan, np.inf, -np.inf
    path = write(image_like(array, volume), tmp_path / f"holes{ending}")
    assert non_finite_voxels(path) == (0 if ending == ".mha" else 3)
    assert int((~np.isfinite(voxels(read_image(path)))).sum()) == (3 if ending == ".mha" else 0)
    assert non_finite_voxels(write(volume, tmp_path / f"whole{ending}")) == 0


def test_voxels_outlive_a_temporary_image():
    def temporary(value: float) -> sitk.Image:
        return sitk.GetImageFromArray(np.full((50, 60, 70), value, np.float32))

    part = voxels(temporary(7))[10:, ::2]
    gc.collect()
    others = [voxels(temporary(1) * 0) for _ in range(8)]
    assert (part == 7).all()
    assert not any(other.any() for other in others)
    assert not part.flags.writeable


# DICOM


def write_series(
    folder: Path, *, series: str = "1.2.3.1", count: int = 6, skip: tuple[int, ...] = (), shift: float = 0.0
) -> np.ndarray:
    """A CT series of ``count`` slices 2.5 mm apart, the file names in the other order; ``shift`` tilts the stack."""
    folder.mkdir(exist_ok=True)
    array = np.random.default_rng(0).integers(-1000, 1000, (count, 8, 10)).astype(np.int16)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number in range(count):
        if number in skip:
            continue
        image = sitk.GetImageFromArray(array[number])
        image.SetSpacing((0.7, 0.9))
        tags = {
            "0008|0060": "CT",
            "0008|0018": f"{series}.{number}",
            "0020|000d": "1.2.3",
            "0020|000e": series,
            "0020|0013": str(number),
            "0020|0032": f"-10\\{5 + shift * number}\\{30 + 2.5 * number}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0028|1052": "-1024",
            "0028|1053": "1",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{series}_{count - number:03d}.dcm"))
        writer.Execute(image)
    return array


def test_a_dicom_series(tmp_path):
    folder = tmp_path / "CT série 1"
    array = write_series(folder)
    (folder / "notes.txt").write_text("the patient moved")
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(300))
    image = read_image(folder)
    assert np.array_equal(voxels(image), array)
    assert image.GetSpacing() == pytest.approx((0.7, 0.9, 2.5))
    assert image.GetOrigin() == pytest.approx((-10, 5, 30))


def test_folders_that_are_not_one_series(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no DICOM series"):
        read_image(tmp_path / "empty")
    write_series(tmp_path / "two", series="1.2.3.1")
    write_series(tmp_path / "two", series="1.2.3.2")
    with pytest.raises(InputError, match="two holds 2 DICOM series"):
        read_image(tmp_path / "two")
    write_series(tmp_path / "one", count=1)
    with pytest.raises(InputError, match="single slice"):
        read_image(tmp_path / "one")


def test_a_missing_slice(tmp_path):
    write_series(tmp_path / "gap", skip=(3,))
    with pytest.raises(InputError, match=r"misses slices .* 1\.2\.3\.1_004\.dcm to 1\.2\.3\.1_002\.dcm it is 5\.00 mm"):
        read_image(tmp_path / "gap")


@pytest.mark.parametrize("kind", ["implicit", "explicit", "sequence"])
def test_an_element_longer_than_its_file_is_refused_before_gdcm_sees_it(tmp_path, monkeypatch, kind):
    """GDCM would make room for 4 GB."""
    write_series(tmp_path / "long")
    path = tmp_path / "long" / "1.2.3.1_003.dcm"
    slice_ = pydicom.dcmread(path)
    slice_.ReferencedImageSequence = [pydicom.Dataset()]
    slice_.ReferencedImageSequence[0].StudyID = "within"
    slice_.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2" if kind == "implicit" else "1.2.840.10008.1.2.1"
    slice_.save_as(path, implicit_vr=kind == "implicit", little_endian=True)
    assert dicom_fault(path) is None
    content = bytearray(path.read_bytes())
    if kind == "sequence":
        place = content.index(b"SH\x06\x00within") + 2
        content[place : place + 2] = b"\xff\xff"
        said = r"\(0020,0010\) promises 65,535 bytes"
    else:
        place = content.index(b"\xe0\x7f\x10\x00") + (4 if kind == "implicit" else 8)
        content[place : place + 4] = b"\xfe\xff\xff\xff"
        said = r"\(7fe0,0010\) promises 4,294,967,294 bytes"
    path.write_bytes(content)
    monkeypatch.setattr(sitk.ImageSeriesReader, "GetGDCMSeriesIDs", lambda *given: pytest.fail("GDCM was asked"))
    with pytest.raises(InputError, match=rf"_003.dcm is cut off or damaged: its element {said}"):
        read_image(tmp_path / "long")


@pytest.mark.parametrize("position", [b"1\\2\\x", b"1\\nan\\2"])
def test_a_position_that_is_none(tmp_path, position):
    write_series(tmp_path / "lost")
    path = tmp_path / "lost" / "1.2.3.1_003.dcm"
    content = path.read_bytes()
    old = b"-10\\5\\37.5 "
    assert old in content
    path.write_bytes(content.replace(old, position.ljust(len(old))))
    with pytest.raises(InputError, match=r"_003.dcm has no ImagePositionPatient \(0020,0032\) of 3 numbers"):
        read_image(tmp_path / "lost")


def edit_slice(path: Path, *keywords: str, **others: str) -> None:
    """Takes elements from a DICOM file, or gives them other values."""
    slice_ = pydicom.dcmread(path)
    for keyword in keywords:
        delattr(slice_, keyword)
    for keyword, value in others.items():
        setattr(slice_, keyword, value)
    slice_.save_as(path)


@pytest.mark.parametrize("number", [1, 3, 6])
@pytest.mark.parametrize(
    ("keyword", "named"),
    [
        ("PixelSpacing", r"PixelSpacing \(0028,0030\) of 2 numbers"),
        ("ImagePositionPatient", r"ImagePositionPatient \(0020,0032\) of 3 numbers"),
        ("ImageOrientationPatient", r"ImageOrientationPatient \(0020,0037\) of 6 numbers"),
    ],
)
def test_a_slice_that_does_not_say_where_it_lies(tmp_path, number, keyword, named):
    """ITK puts it at 0, or has its pixels of 1 mm."""
    write_series(tmp_path / "lost")
    edit_slice(tmp_path / "lost" / f"1.2.3.1_{number:03d}.dcm", keyword)
    with pytest.raises(InputError, match=f"_{number:03d}.dcm has no {named}"):
        read_image(tmp_path / "lost")


@pytest.mark.parametrize("keyword", ["PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"])
def test_a_whole_series_that_does_not_say_where_it_lies(tmp_path, keyword):
    write_series(tmp_path / "lost")
    for path in (tmp_path / "lost").iterdir():
        edit_slice(path, keyword)
    with pytest.raises(InputError, match=f"has no {keyword}"):
        read_image(tmp_path / "lost")


def test_a_single_slice_says_where_it_lies_too(tmp_path):
    write_series(tmp_path / "one", count=1)
    assert read_image(tmp_path / "one", single_slice=True).GetSpacing()[:2] == pytest.approx((0.7, 0.9))
    edit_slice(tmp_path / "one" / "1.2.3.1_001.dcm", "PixelSpacing")
    with pytest.raises(InputError, match="has no PixelSpacing"):
        read_image(tmp_path / "one", single_slice=True)


def test_slices_with_other_pixels_or_turned(tmp_path):
    for name, tags, said in [
        ("pixels", {"PixelSpacing": [0.9, 0.8]}, r"_003.dcm has pixels of 0.8 x 0.9 mm, .* reads as 0.7 x 0.9 mm"),
        ("turned", {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, r"_003.dcm is turned against the other slices"),
    ]:
        write_series(tmp_path / name)
        edit_slice(tmp_path / name / "1.2.3.1_003.dcm", **tags)
        with pytest.raises(InputError, match=said):
            read_image(tmp_path / name)


def test_enhanced_slices_say_it_elsewhere(tmp_path):
    """Some scanners write enhanced files of one frame each."""
    array = write_series(tmp_path / "enhanced")
    for path in (tmp_path / "enhanced").iterdir():
        slice_ = pydicom.dcmread(path)
        slice_.SOPClassUID = slice_.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
        shared = slice_.SharedFunctionalGroupsSequence = [pydicom.Dataset()]
        frames = slice_.PerFrameFunctionalGroupsSequence = [pydicom.Dataset()]
        for group, name, keyword in [
            (shared[0], "PixelMeasuresSequence", "PixelSpacing"),
            (shared[0], "PlaneOrientationSequence", "ImageOrientationPatient"),
            (frames[0], "PlanePositionSequence", "ImagePositionPatient"),
        ]:
            item = pydicom.Dataset()
            setattr(item, keyword, getattr(slice_, keyword))
            delattr(slice_, keyword)
            setattr(group, name, [item])
        slice_.NumberOfFrames = 1
        slice_.save_as(path)
    image = read_image(tmp_path / "enhanced")
    assert sorted(voxels(image)[:, 0, 0]) == sorted(array[:, 0, 0])


@pytest.mark.parametrize("content", [b"\0\5\x16\7" + bytes(78), b""])
def test_what_macos_leaves_beside_a_series(tmp_path, content):
    array = write_series(tmp_path / "mac")
    for path in list((tmp_path / "mac").iterdir()):
        path.with_name(f"._{path.name}").write_bytes(content)
    assert np.array_equal(voxels(read_image(tmp_path / "mac")), array)


def test_a_tilted_gantry(tmp_path):
    write_series(tmp_path / "tilt", shift=0.5)
    with pytest.raises(InputError, match=r"stacked askew, by 2\.5 mm"):
        read_image(tmp_path / "tilt")


@pytest.mark.parametrize("number", [1, 3, 6])
@pytest.mark.parametrize("kept", [-2, 300, 100, 0])
def test_a_truncated_slice(tmp_path, number, kept):
    """GDCM leaves such a file out; at an end of the series the volume would only be shorter."""
    write_series(tmp_path / "cut")
    path = tmp_path / "cut" / f"1.2.3.1_{number:03d}.dcm"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=f"1.2.3.1_{number:03d}.dcm is cut off or damaged"):
        read_image(tmp_path / "cut")


# Writing


def test_files_appear_together(tmp_path, volume):
    names = [f"Maske ü{ending}" for ending in ENDINGS]
    with OutputFiles() as files:
        for name in names:
            files.write_image(volume, tmp_path / name)
        files.write_text("größer", tmp_path / "a b.json")
        assert not any((tmp_path / name).exists() for name in [*names, "a b.json"])
    assert sorted(os.listdir(tmp_path)) == sorted([*names, "a b.json"])
    assert (tmp_path / "a b.json").read_text(encoding="utf-8") == "größer"
    for name in names:
        assert np.array_equal(voxels(read_image(tmp_path / name)), voxels(volume))


def test_files_are_as_readable_as_any_other(tmp_path, volume):
    (tmp_path / "plain").write_text("")
    with OutputFiles() as files:
        files.write_image(volume, tmp_path / "mask.nii.gz")
    assert (tmp_path / "mask.nii.gz").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_symbolic_link_is_written_through(tmp_path, volume):
    for folder in ("here", "store"):
        (tmp_path / folder).mkdir()
    links = {name: tmp_path / "here" / name for name in ("mask.nii.gz", "new.nii.gz", "text.json")}
    for name, link in links.items():
        link.symlink_to(tmp_path / "store" / f"of {name}")
    (tmp_path / "store" / "of mask.nii.gz").write_bytes(b"what was there before")
    check_writable(links["mask.nii.gz"])
    with OutputFiles() as files:
        files.write_image(volume, links["mask.nii.gz"])
        files.write_image(volume, links["new.nii.gz"])
        files.write_text("text", links["text.json"])
    assert all(link.is_symlink() for link in links.values())
    assert sorted(os.listdir(tmp_path / "here")) == sorted(links)
    assert sorted(os.listdir(tmp_path / "store")) == sorted(f"of {name}" for name in links)
    assert np.array_equal(voxels(read_image(links["mask.nii.gz"])), voxels(volume))
    (tmp_path / "here" / "lost.nii.gz").symlink_to(tmp_path / "nowhere" / "lost.nii.gz")
    with pytest.raises(InputError, match=r"nowhere for the output lost\.nii\.gz does not exist"):
        check_writable(tmp_path / "here" / "lost.nii.gz")


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt])
def test_nothing_remains_of_a_failure(tmp_path, volume, fault):
    (tmp_path / "old.nii.gz").write_bytes(b"what was there before")

    def work() -> None:
        with OutputFiles() as files:
            files.write_image(volume, tmp_path / "old.nii.gz")
            files.write_text("text", tmp_path / "text.json")
            raise fault

    with pytest.raises(fault):
        work()
    assert os.listdir(tmp_path) == ["old.nii.gz"]
    assert (tmp_path / "old.nii.gz").read_bytes() == b"what was there before"


def test_a_name_that_is_taken_by_a_folder(tmp_path, volume):
    (tmp_path / "taken.nii.gz").mkdir()

    def work() -> None:
        with OutputFiles() as files:
            files.write_image(volume, tmp_path / "taken.nii.gz")

    with pytest.raises(InputError, match=r"taken\.nii\.gz could not be written"):
        work()
    assert os.listdir(tmp_path) == ["taken.nii.gz"]


def test_check_writable(tmp_path):
    check_writable(tmp_path / "mask.nii.gz")
    with pytest.raises(InputError, match="no image ending"):
        check_writable(tmp_path / "mask.png")
    with pytest.raises(InputError, match="does not exist: create it first"):
        check_writable(tmp_path / "no" / "mask.nii.gz")
    (tmp_path / "folder.nii.gz").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        check_writable(tmp_path / "folder.nii.gz")


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np, SimpleITK as sitk
from TeachFormerCore.data.image import OutputFiles
from TeachFormerCore.errors import InputError

noise = sitk.GetImageFromArray(np.random.default_rng(0).normal(size=(40, 40, 40)).astype(np.float32))
zeros = sitk.Image((200, 200, 200), sitk.sitkUInt8)  # its missing part could pass for what it should be
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
folder = Path(sys.argv[1])
cases = [(f"mask{ending}", noise) for ending in (".nii.gz", ".nii", ".nrrd", ".mha")]
for name, image in [*cases, ("zeros.nii", zeros)]:
    try:
        with OutputFiles() as files:
            files.write_text("first", folder / "first.json")
            files.write_image(image, folder / name)
        print("written", name)
    except InputError as error:
        print("refused", name, "could not be written" in str(error))
try:
    with OutputFiles() as files:
        files.write_text("x" * 60_000, folder / "long.json")
    print("written long.json")
except InputError as error:
    print("refused long.json", error)
print(sorted(path.name for path in folder.iterdir()))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files through POSIX")
def test_a_full_disk(tmp_path):
    """Simulated by a limit on the size of files: every format is refused, and nothing remains."""
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        capture_output=True,
        encoding="utf-8",
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    names = [*(f"mask{ending}" for ending in ENDINGS), "zeros.nii"]
    assert [line for line in lines if not line.startswith("refused long")] == [
        *(f"refused {name} True" for name in names),
        "[]",
    ]
    assert "File too large" in lines[-2]


def test_a_path_that_nobody_can_open_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"cannot be opened \(File name too long\): check the path"):
        read_image(tmp_path / f"{'x' * 5000}.nii.gz")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="does not exist: check the path"):
        read_image(tmp_path / "file" / "below.nii.gz")


def test_same_bits_by_hand():
    values = np.array([[0.0, np.nan], [-np.inf, 1e-40]], np.float32)
    assert same_bits(values, values.copy())
    assert same_bits(values.T, values.T.copy())
    for place, other in (((0, 1), 0.0), ((1, 1), 1.1e-40), ((1, 0), np.inf)):
        changed = values.copy()
        changed[place] = other
        assert not same_bits(values, changed)
    assert not same_bits(values, values.astype(np.float64))
    assert not same_bits(values, values[:1])
