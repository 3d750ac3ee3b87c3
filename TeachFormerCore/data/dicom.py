"""One DICOM series in a folder, read as a volume, with what ITK only warns about or does not see refused."""

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from .dicom_lengths import dicom_fault
from .integrity import itk_reason

# How far, in slice distances, a slice may lie from its place in an even stack.
SLICE_TOLERANCE = 0.1
SPACING_TOLERANCE = 1e-3  # of the spacing
POSITION, ORIENTATION, SPACING, SOP_CLASS = "0020|0032", "0020|0037", "0028|0030", "0008|0016"
# What every slice has to say of its place: ITK puts 0, or 1 mm, for what is missing. Name and how many numbers.
GEOMETRY = {
    POSITION: ("ImagePositionPatient (0020,0032)", 3),
    ORIENTATION: ("ImageOrientationPatient (0020,0037)", 6),
    SPACING: ("PixelSpacing (0028,0030)", 2),
}
# CT, MR and PET, enhanced or converted to it: they say it per frame, elsewhere, and ITK's own geometry is all there is.
ENHANCED = {f"1.2.840.10008.5.1.4.1.1.{ending}" for ending in ("2.1", "2.2", "4.1", "4.3", "4.4", "130", "128.1")}
HEADER_BYTES = 256  # enough for a DICOM file to say what it is


def dicom_series_files(folder: Path) -> list[str]:
    """The files of the one DICOM series in a folder, in slice order.

    Raises:
        InputError: the folder holds no DICOM series, or several, or a damaged file.
    """
    for path in visible_files(folder):
        if fault := dicom_fault(path):
            raise InputError(f"{path} {fault}: copy the DICOM series again.")
    try:
        # GDCM warns on every file of the folder that is not DICOM; that is not an error of the user's.
        with _quiet_itk():
            series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
            if len(series) == 1:
                return list(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0]))
    except RuntimeError as error:
        raise InputError(f"The DICOM series in {folder} could not be read ({itk_reason(error)}).") from error
    if not series:
        raise InputError(f"The folder {folder} holds no DICOM series: give a folder with the slices of one series.")
    raise InputError(
        f"The folder {folder} holds {len(series)} DICOM series: put each one in a folder of its own and give that."
    )


def read_dicom_series(folder: Path) -> sitk.Image:
    """The volume of the one DICOM series in a folder.

    Raises:
        InputError: no series or several, a slice that is cut off, missing, doubled or out of place (a tilted gantry),
            or does not say where it lies.
    """
    files = dicom_series_files(folder)
    _check_left_out(files, folder)
    return _read_slices(files, folder)


def read_dicom_stack(files: Iterable[Path], folder: Path) -> tuple[sitk.Image, list[Path]]:
    """The volume of slice files that are one stack, whatever series they name, and the files in its order.

    Some anonymisers give each slice a series of its own, and file names need not follow the slices: the order is that
    of the positions along the slices' normal.

    Args:
        files: of one slice each.
        folder: where they are from, for the errors.

    Raises:
        InputError: no files, one that does not say where it lies or has another orientation, and as
            `read_dicom_series`.
    """
    slices = [(_geometry(file, _slice_tags(file)), file) for file in sorted(files)]
    if not slices:
        raise InputError(f"The folder {folder} holds no DICOM slices.")
    orientation = _common_orientation(slices, folder)
    normal = np.cross(orientation[:3], orientation[3:])
    ordered = [file for _, file in sorted((float(normal @ here[POSITION]), file) for here, file in slices)]
    return _read_slices([str(file) for file in ordered], folder), ordered


def _slice_tags(file: Path) -> dict[str, str]:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(file))
    try:
        with _quiet_itk():
            reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(f"{file} could not be read as DICOM ({itk_reason(error)}): copy it again.") from error
    return {tag: reader.GetMetaData(tag) for tag in GEOMETRY if reader.HasMetaDataKey(tag)}


def _numbers(text: str) -> list[float]:
    """The finite numbers of an element; none where one of them is not."""
    try:
        numbers = [float(value) for value in text.split("\\")]
    except ValueError:
        return []
    return numbers if np.isfinite(numbers).all() else []


def _read_slices(files: list[str], folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(files)
    reader.MetaDataDictionaryArrayUpdateOn()
    # ITK takes the pixel type of the first slice for all, and would round those with another rescale slope.
    reader.SetOutputPixelType(sitk.sitkFloat32)
    try:
        with _quiet_itk():
            image = reader.Execute()
    except RuntimeError as error:
        raise InputError(f"The DICOM series in {folder} could not be read ({itk_reason(error)}).") from error
    slices = [
        {tag: reader.GetMetaData(number, tag) for tag in (*GEOMETRY, SOP_CLASS) if reader.HasMetaDataKey(number, tag)}
        for number in range(len(files))
    ]
    enhanced = {texts.get(SOP_CLASS, "").strip("\0 ") for texts in slices} <= ENHANCED
    # A file of many frames is as an enhanced one.
    if not enhanced and image.GetDimension() == 3 and len(files) == image.GetSize()[2]:
        paths = [Path(file) for file in files]
        _check_geometry(
            [(_geometry(path, texts), path) for path, texts in zip(paths, slices, strict=True)], image, folder
        )
    return image


def _geometry(file: Path, texts: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The numbers of `GEOMETRY` of one slice."""
    numbers = {tag: np.array(_numbers(texts.get(tag, ""))) for tag in GEOMETRY}
    for tag, (name, count) in GEOMETRY.items():
        if len(numbers[tag]) != count or (tag == SPACING and not (numbers[tag] > 0).all()):
            raise InputError(
                f"{file} has no {name} of {count} numbers, without which its voxels have no place in millimetres (an "
                "anonymiser may have removed it): export the DICOM series again with it."
            )
    return numbers


def _common_orientation(slices: list[tuple[dict[str, np.ndarray], Path]], folder: Path) -> np.ndarray:
    orientation = slices[0][0][ORIENTATION]
    for here, file in slices:
        if not np.allclose(here[ORIENTATION], orientation, atol=1e-3):
            raise InputError(f"{file} is turned against the other slices in {folder}: give one series alone.")
    return orientation


def _check_left_out(files: list[str], folder: Path) -> None:
    """GDCM passes over a slice that is cut off as over any file that is no image; at an end no gap would show it."""
    kind = _sop_class(Path(files[0]))
    for path in sorted(set(visible_files(folder)) - set(map(Path, files))):
        stub = path.stat().st_size < HEADER_BYTES and path.suffix and path.suffix == Path(files[0]).suffix
        if stub or (kind is not None and _sop_class(path) == kind):
            raise InputError(f"{path} is cut off or damaged: copy the DICOM series again.")


def visible_files(folder: Path) -> list[Path]:
    """Its files, by name, but hidden ones: macOS leaves a small ``._NAME`` beside each file that it copies."""
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _sop_class(path: Path) -> bytes | None:
    """What kind of object a DICOM file holds (MediaStorageSOPClassUID); None where it does not say."""
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    if head[128:132] != b"DICM":
        return None
    match = re.search(rb"\x02\x00\x02\x00UI..([0-9.]+)", head, re.DOTALL)
    return match.group(1) if match else None


def _check_geometry(slices: list[tuple[dict[str, np.ndarray], Path]], image: sitk.Image, folder: Path) -> None:
    """A missing slice or a tilted gantry would shift anatomy: ITK spaces the slices evenly and goes on."""
    _common_orientation(slices, folder)
    for here, file in slices:
        row, column = here[SPACING]
        if not np.allclose((column, row), image.GetSpacing()[:2], rtol=SPACING_TOLERANCE):
            x, y = image.GetSpacing()[:2]
            raise InputError(
                f"{file} has pixels of {column:g} x {row:g} mm, but the DICOM series in {folder} reads as {x:g} x "
                f"{y:g} mm: export the whole series again, as CT, MR or PET."
            )
    if len(slices) < 2:
        return
    steps = np.diff([here[POSITION] for here, _file in slices], axis=0)
    step = np.median(steps, axis=0)
    distance = float(np.linalg.norm(step))
    errors = np.linalg.norm(steps - step, axis=1)
    worst = int(np.argmax(errors))
    if errors[worst] > SLICE_TOLERANCE * distance:
        raise InputError(
            f"The DICOM series in {folder} misses slices or has some twice: from {slices[worst][1].name} to "
            f"{slices[worst + 1][1].name} it is {np.linalg.norm(steps[worst]):.2f} mm, elsewhere {distance:.2f} mm. "
            "Export the whole series again, one time point in a folder."
        )
    normal = np.reshape(image.GetDirection(), (3, 3))[:, 2]
    drift = float(np.linalg.norm(step - normal * (step @ normal))) * len(steps)
    if drift > SLICE_TOLERANCE * distance:
        raise InputError(
            f"The slices of the DICOM series in {folder} are stacked askew, by {drift:.1f} mm over the series (a "
            "tilted gantry): convert it to NIfTI with a program that corrects the tilt, e.g. dcm2niix."
        )


@contextlib.contextmanager
def _quiet_itk() -> Iterator[None]:
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)
