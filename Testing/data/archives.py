"""Miniature archives with the organisers' file names, headers and oddities, a landmark at known millimetres in each."""

import csv
import hashlib
import math
from pathlib import Path

import numpy as np
import SimpleITK as sitk

CASES = ("CHGJ007", "CHGJ008", "CHMR001", "CHUM002", "CHUM003", "CHUP004", "CHUS005", "CHUS006")  # of HECKTOR
# Of liver, right and left kidney and spleen along the image's axes: to both sides, so that a mirrored one is noticed.
ORGAN_SHIFTS = ((0.0, 0.0, 0.0), (14.0, 0.0, 0.0), (-14.0, 0.0, 0.0), (0.0, 12.0, 0.0))


def rotation(degrees=0.0, *, flips=()):
    """Direction cosines, row-major: turned about the patient's long axis and tilted, with some axes reversed."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    for axis in flips:
        matrix[:, axis] *= -1
    return matrix


def empty(size, spacing, centre, matrix, kind=sitk.sitkFloat32):
    """An image about a centre in LPS millimetres."""
    image = sitk.Image([int(n) for n in size], kind)
    image.SetSpacing([float(s) for s in spacing])
    image.SetDirection(matrix.ravel().tolist())
    half = matrix @ ((np.array(size) - 1) / 2 * np.array(spacing))
    image.SetOrigin((np.array(centre) - half).tolist())
    return image


def points(image):
    """LPS millimetres of every voxel, ``(z, y, x, 3)``."""
    x, y, z = image.GetSize()
    index = np.stack(np.meshgrid(np.arange(z), np.arange(y), np.arange(x), indexing="ij")[::-1], axis=-1)
    axes = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    return index @ axes.T + np.array(image.GetOrigin())


def blob(image, place, *, width=6.0, low=0.0, high=100.0):
    """The image with a Gaussian at a place, on which a centre of mass is exact between voxels too."""
    distance = ((points(image) - np.array(place)) ** 2).sum(axis=-1)
    array = (low + (high - low) * np.exp(-distance / (2 * width**2))).astype(np.float32)
    filled = sitk.GetImageFromArray(array)
    filled.CopyInformation(image)
    return filled


def ball(image, place, *, radius=8.0, value=1):
    """A label: a ball at a place."""
    inside = (((points(image) - np.array(place)) ** 2).sum(axis=-1) <= radius**2) * value
    label = sitk.GetImageFromArray(inside.astype(np.uint8))
    label.CopyInformation(image)
    return label


def centre_of_mass(image):
    """In LPS millimetres; of an image, of what lies above half its range."""
    array = sitk.GetArrayFromImage(image).astype(float)
    weight = np.clip(array - (array.min() + array.max()) / 2, 0, None) if array.max() > 1 else array
    return (points(image) * weight[..., None]).sum(axis=(0, 1, 2)) / weight.sum()


def hecktor(folder: Path, cases: dict[str, dict], *, box_mm=24.0, ending="_gtvt.nii.gz") -> dict[str, np.ndarray]:
    """``hecktor_nii`` and its boxes; ``cases`` may set ``matrix``, ``label`` (False: none), ``box`` (False: no row)."""
    data = folder / "hecktor_nii"
    data.mkdir(parents=True)
    places, rows = {}, []
    for number, (name, options) in enumerate(cases.items()):
        matrix = options.get("matrix", rotation())
        centre = np.array([-20.0 + number, 35.0, -410.5])
        place = centre + np.array([3.0, -2.0, 1.5])
        ct = empty((40, 36, 16), (1.2, 1.2, 3.0), centre, matrix)
        pet = empty((14, 14, 16), (4.0, 4.0, 3.0), centre + 1, matrix)
        hu = sitk.Cast(sitk.Round(blob(ct, place, low=-1000 + number, high=60)), sitk.sitkInt16)
        sitk.WriteImage(hu, str(data / f"{name}_ct.nii.gz"))
        sitk.WriteImage(blob(pet, place, high=8.25 + number), str(data / f"{name}_pt.nii.gz"))
        if options.get("label", True):
            sitk.WriteImage(ball(ct, place, radius=6), str(data / (name + ending)))
        if options.get("box", True):
            low = place - box_mm / 2 + [0.4, 0.0, 0.0]
            ends = [(v, v + box_mm) for v in low.tolist()]
            rows.append([name, *(f"{v:.3f}" for pair in ends for v in pair)])
        places[name] = place
    with (folder / "hecktor2021_bbox_training.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["PatientID", "x1", "x2", "y1", "y2", "z1", "z2"], *rows])
    return places


def picai(folder: Path, studies: dict[str, int], *, matrix=None) -> dict[str, np.ndarray]:
    """``images`` and ``picai_labels``; the value of a study is the ISUP grade of its lesion, 0 for an empty label."""
    matrix = rotation(7) if matrix is None else matrix
    labels = folder / "picai_labels" / "csPCa_lesion_delineations"
    expert, ai = labels / "human_expert" / "resampled", labels / "AI" / "Bosma22a"
    for place in (expert, ai, folder / "picai_labels" / "clinical_information"):
        place.mkdir(parents=True)
    rows, places = [["patient_id", "study_id", "center"]], {}
    for number, (name, grade) in enumerate(studies.items()):
        patient, study = name.split("_")
        images = folder / "images" / patient
        images.mkdir(parents=True, exist_ok=True)
        centre = np.array([5.0, -30.0 + number, 12.25])
        place = centre + np.array([-6.0, 4.0, 3.0])
        t2w = empty((64, 64, 11), (0.6, 0.6, 3.3), centre, matrix)
        other = empty((28, 28, 10), (2.0, 2.0, 3.6), centre + np.array([1, -1, 0.5]), matrix)
        for part, grid in (("t2w", t2w), ("adc", other), ("hbv", other)):
            image = blob(grid, place, high=400 + number)
            sitk.WriteImage(sitk.Cast(image, sitk.sitkInt16), str(images / f"{name}_{part}.mha"), True)
        sitk.WriteImage(ball(t2w, place, radius=7, value=grade), str(expert / f"{name}.nii.gz"))
        sitk.WriteImage(ball(t2w, place, radius=7, value=1), str(ai / f"{name}.nii.gz"))
        rows.append([patient, study, ("RUMC", "ZGT", "PCNN")[int(patient) % 3]])
        places[name] = place
    sheet = folder / "picai_labels" / "clinical_information" / "marksheet.csv"
    with sheet.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return places


def brats(folder: Path, cases: dict[str, str]) -> np.ndarray:
    """``HGG`` and ``LGG`` of cases named with their grade; the grade ``validation`` has no labels. The landmark."""
    # The organisers' files are stored LPS with this origin.
    centre, place = np.array([15.0, -231.0, 10.0]), np.array([16.0, -230.0, 12.0])
    for number, (name, grade) in enumerate(cases.items()):
        case = folder / grade / name
        case.mkdir(parents=True)
        for channel, part in enumerate(("flair", "t1", "t1ce", "t2")):
            image = blob(empty((30, 28, 20), (1, 1, 1), centre, rotation()), place, high=700 + number + 50 * channel)
            sitk.WriteImage(sitk.Cast(image, sitk.sitkInt16), str(case / f"{name}_{part}.nii.gz"))
        if grade != "validation":
            grid = empty((30, 28, 20), (1, 1, 1), centre, rotation())
            shells = [sitk.GetArrayFromImage(ball(grid, place, radius=r)) for r in (8, 5, 3)]
            array = np.select([shells[2] > 0, shells[1] > 0, shells[0] > 0], [4, 1, 2], 0).astype(np.uint8)
            label = sitk.GetImageFromArray(array)
            label.CopyInformation(grid)
            sitk.WriteImage(label, str(case / f"{name}_seg.nii.gz"))
    return place


def chaos(folder: Path, patients: dict[str, dict]) -> dict[str, np.ndarray]:
    """``Train_Sets/MR``; a patient may set ``matrix`` (of a right-handed grid), ``reverse`` (names against positions),
    ``one_series`` (False, as shipped: each slice a series of its own), ``ground`` and ``renamed`` masks.
    """
    places = {}
    for number, (patient, options) in enumerate(patients.items()):
        matrix = options.get("matrix", rotation())
        centre = np.array([4.0, -20.0 - number, 55.0])
        place = centre + np.array([5.0, 3.0, -4.0])
        places[patient] = place
        grid = empty((32, 28, 9), (1.6, 1.6, 5.5), centre, matrix)
        for sub, stacks in (("T1DUAL", ("InPhase", "OutPhase")), ("T2SPIR", (".",))):
            root = folder / "Train_Sets" / "MR" / patient / sub
            for offset, stack in enumerate(stacks):
                image = sitk.Cast(blob(grid, place, width=8, high=500 + number + 10 * offset), sitk.sitkUInt16)
                (root / "DICOM_anon" / stack).mkdir(parents=True)
                for slice_, name in _slices(grid, options.get("reverse", False), len(stacks), offset):
                    file = root / "DICOM_anon" / stack / f"IMG-0004-{name:05d}.dcm"
                    _write_slice(image, slice_, file, name, options.get("one_series", False))
            if not options.get("ground", True):
                continue
            (root / "Ground").mkdir()
            array = np.zeros(grid.GetSize()[::-1], np.uint8)
            for value, shift in zip((63, 126, 189, 252), ORGAN_SHIFTS, strict=True):
                array[sitk.GetArrayFromImage(ball(grid, place + matrix @ shift, radius=6)) > 0] = value
            for slice_, name in _slices(grid, options.get("reverse", False), len(stacks), 0):
                file = f"{'mask' if options.get('renamed') else 'IMG'}-0004-{name:05d}.png"
                sitk.WriteImage(sitk.GetImageFromArray(array[slice_]), str(root / "Ground" / file))
    return places


def _slices(grid, reverse, step, offset):
    """Slice numbers of the grid with the number in the file name; in and out of phase take turns."""
    count = grid.GetSize()[2]
    order = range(count - 1, -1, -1) if reverse else range(count)
    return [(slice_, place * step + offset + 1) for place, slice_ in enumerate(order)]


def _write_slice(image, number, file, name, one_series):
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    axes = np.reshape(image.GetDirection(), (3, 3))
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    slice_ = Dataset()
    slice_.file_meta = meta
    slice_.SOPClassUID, slice_.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    slice_.StudyInstanceUID = "1.2.3"
    slice_.SeriesInstanceUID = "1.2.3.4" if one_series else generate_uid()
    slice_.FrameOfReferenceUID = "1.2.3.5"
    slice_.Modality, slice_.PatientID, slice_.InstanceNumber = "MR", "anonymous", name
    slice_.ImagePositionPatient = [f"{v:.6f}" for v in image.TransformIndexToPhysicalPoint((0, 0, number))]
    slice_.ImageOrientationPatient = [f"{v:.8f}" for v in (*axes[:, 0], *axes[:, 1])]
    slice_.PixelSpacing, slice_.SliceThickness = [image.GetSpacing()[1], image.GetSpacing()[0]], image.GetSpacing()[2]
    slice_.Rows, slice_.Columns, slice_.SamplesPerPixel = image.GetSize()[1], image.GetSize()[0], 1
    slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 0
    slice_.PhotometricInterpretation = "MONOCHROME2"
    slice_.PixelData = sitk.GetArrayFromImage(image)[number].tobytes()
    slice_.save_as(file, enforce_file_format=True)


def state(folder):
    """Every file with its content and time, to show that nothing was touched."""
    return {
        file.relative_to(folder): (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns)
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def names(folder, part):
    return sorted(file.name.removesuffix(".nii.gz") for file in (folder / part).glob("*.nii.gz"))


def array(folder, part, name):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(folder / part / f"{name}.nii.gz")))
