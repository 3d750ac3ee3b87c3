"""Headers that would end the process inside ITK are refused before; those that programs write are read."""

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from TeachFormerCore.data.headers import header_fault
from TeachFormerCore.data.image import read_image
from TeachFormerCore.errors import InputError

NRRD = """NRRD0005
# written by a program
type: short
dimension: 3
space: left-posterior-superior
sizes: 2 2 2
space directions: (1.5,0,-1.2246467991473532e-16) (0,2,0) (0,0,2.5)
kinds: domain domain domain
endian: little
encoding: raw
space origin: (-1.,.5,30)
a key of one's own:=x=y: ~^|

"""
META = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = False
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = -1 .5 30
CenterOfRotation = 0 0 0
AnatomicalOrientation = RAI
ElementSpacing = 1.5 2 2.5
0008|0060 = CT
ITK_InputFilterName = MetaImageIO
DimSize = 2 2 2
ElementType = MET_SHORT
ElementDataFile = LOCAL
"""
TEXTS = {".nrrd": NRRD, ".mha": META}


def written(folder: Path, ending: str, old: str = "", new: str = "") -> Path:
    text = TEXTS[ending]
    assert old in text
    file = folder / f"a{ending}"
    file.write_bytes(text.replace(old, new, 1).encode("latin-1") + np.arange(8, dtype="<i2").tobytes())
    return file


@pytest.mark.parametrize("ending", TEXTS)
def test_a_plain_header_is_read(tmp_path: Path, ending: str) -> None:
    file = written(tmp_path, ending)
    assert header_fault(file) is None
    image = read_image(file)
    assert image.GetSpacing() == (1.5, 2.0, 2.5)
    assert image.GetOrigin() == (-1.0, 0.5, 30.0)
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(image).ravel(), np.arange(8))


BAD = {
    "long word": (".nrrd", "(0,2,0)", "(0," + "x" * 5000 + ",0)"),
    "long number": (".nrrd", "(0,2,0)", "(0," + "2" * 5000 + ",0)"),
    "brackets": (".nrrd", "(0,2,0)", "[" * 5000),
    "sizes missing": (".nrrd", "sizes: 2 2 2", "sizes: 2 2"),
    "no sizes": (".nrrd", "sizes: 2 2 2\n", ""),
    "twice": (".nrrd", "sizes: 2 2 2\n", "sizes: 2 2 2\nsizes: 3 3 3\n"),
    "negative": (".nrrd", "dimension: 3", "dimension: -3"),
    "not a field": (".nrrd", "kinds:", "kunds:"),
    "another folder's file": (".nrrd", "encoding: raw", "encoding: raw\ndata file: ../../x"),
    "a promise": (".nrrd", "sizes: 2 2 2", "sizes: 90000 90000 9"),
    "no end": (".nrrd", "\n\n", "\n"),
    "huge": (".nrrd", "sizes: 2 2 2", "sizes: 2 2 99999999"),
    "negative dimensions": (".mha", "NDims = 3", "NDims = -2147483648"),
    "two of them": (".mha", "NDims = 3", "NDims = 3\nNDims = -3"),
    "matrix": (".mha", "1 0 0 0 1 0 0 0 1", "1 0 0 0 1 0 0 0"),
    "null byte": (".mha", "ElementDataFile", "ElementDataFi\0e"),
    "no file": (".mha", "ElementDataFile = LOCAL\n", ""),
    "a file elsewhere": (".mha", "LOCAL", "/etc/passwd"),
    "a key of nothing": (".mha", "AnatomicalOrientation", ""),
    "a key that ITK ends earlier": (".mha", "AnatomicalOrientation =", "NDims: -3 ="),
    "a key not to be printed": (".mha", "AnatomicalOrientation", "a\x1bc"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_header_is_refused_before_itk_sees_it(
    tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending, old, new = BAD[fault]
    file = written(tmp_path, ending, old, new)
    monkeypatch.setattr(sitk, "ReadImage", lambda *_: pytest.fail("ITK was asked"))
    with pytest.raises(InputError, match="could not be read as an image"):
        read_image(file)


def test_a_nifti_that_promises_more_than_it_can_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ITK would make room for 30,000 cubed."""
    file = tmp_path / "a.nii"
    sitk.WriteImage(sitk.Image(2, 2, 2, sitk.sitkInt16), str(file))
    content = bytearray(file.read_bytes())
    content[42:48] = np.array([30_000] * 3, "<i2").tobytes()
    file.write_bytes(content)
    monkeypatch.setattr(sitk, "ReadImage", lambda *_: pytest.fail("ITK was asked"))
    with pytest.raises(InputError, match="promises 27,000,000,000,000 voxels"):
        read_image(file)


@pytest.mark.parametrize(
    ("ending", "old", "new", "reason"),
    [
        (".nrrd", "(1.5,0,-1.2246467991473532e-16)", "(1.5,0.9,0)", "not at right angles"),
        (".nrrd", "(0,2,0)", "(0,1e9,0)", "voxels of 1.5 x 1e\\+09 x 2.5 mm"),
        (".mha", "Offset = -1", "Offset = 1e12", "lies at 1e\\+12"),
    ],
)
def test_a_geometry_that_no_scanner_makes_is_refused(
    tmp_path: Path, ending: str, old: str, new: str, reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        read_image(written(tmp_path, ending, old, new))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_sheared_nifti_is_refused_though_its_qform_is_not(tmp_path: Path, ending: str) -> None:
    """ITK reads it by its qform; where the sform is the truth, another channel would lie beside it, without a word."""
    image = sitk.Image(4, 5, 6, sitk.sitkInt16) + 7
    image.SetSpacing((1.5, 2.0, 2.5))
    file = tmp_path / "plain.nii"
    sitk.WriteImage(image, str(file))
    assert header_fault(file) is None
    content = bytearray(file.read_bytes())
    assert np.frombuffer(content, "<i2", 2, 252).all(), "qform and sform are both there"
    content[284:288] = np.float32(0.02).tobytes()  # along x by the voxel of y
    sheared = tmp_path / f"sheared{ending}"
    sheared.write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
    with pytest.raises(InputError, match=r"not at right angles \(its sform is sheared\)"):
        read_image(sheared)


@pytest.mark.full
def test_itk_still_needs_this(tmp_path: Path) -> None:
    """Where this fails, ITK has been mended, and the room can go."""
    file = written(tmp_path, *BAD["brackets"])
    ended = subprocess.run([sys.executable, "-c", "import sys, SimpleITK; SimpleITK.ReadImage(sys.argv[1])", file])
    assert ended.returncode not in (0, 1)


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32, np.float64, np.uint32])
def test_what_simpleitk_writes_is_read(tmp_path: Path, ending: str, compressed: bool, kind: type) -> None:
    image = sitk.GetImageFromArray(np.arange(60).reshape(3, 4, 5).astype(kind))
    image.SetSpacing((1 / 3, 0.7, 5.0))
    image.SetDirection(sitk.VersorTransform((0.2, 0.4, 0.9), 0.4).GetMatrix())
    image.SetMetaData("0010|0010", "a name = b: c")
    file = tmp_path / f"x{ending}"
    sitk.WriteImage(image, str(file), compressed)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(file)), sitk.GetArrayFromImage(image))


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
@pytest.mark.parametrize("source", [".nii.gz", ".nrrd", ".mha"])
def test_what_simpleitk_converts_is_read(tmp_path: Path, source: str, ending: str) -> None:
    """It hands on what one format's header says as keys in the other: "dim[0] = 3", "NRRD_kinds[0] = domain"."""
    first, second = tmp_path / f"first{source}", tmp_path / f"second{ending}"
    image = sitk.GetImageFromArray(np.arange(60).reshape(3, 4, 5).astype(np.int16))
    image.SetMetaData("of one's own, [with] (brackets) & \N{MICRO SIGN}/\N{LATIN SMALL LETTER SHARP S}", "1")
    sitk.WriteImage(image, str(first))
    sitk.WriteImage(sitk.ReadImage(str(first)), str(second))
    if (source, ending) == (".nii.gz", ".mha"):
        assert b"\ndim[0] = 3\n" in second.read_bytes()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(second)), np.arange(60).reshape(3, 4, 5))
