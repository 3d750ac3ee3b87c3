"""One DICOM series in a folder, read as a volume, with what ITK only warns about or does not see refused."""

import contextlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from .dicom_lengths import dicom_fault
from .integrity import itk_reason

# How far, in slice distances, a slice may lie from its place in an even stack.
SLICE_TOLERANCE = 0.1
POSITION = "0020|0032"  # ImagePositionPatient
ORIENTATION = "0020|0037"  # ImageOrientationPatient
HEADER_BYTES = 256  # enough for a DICOM file to say what it is


def dicom_series_files(folder: Path) -> list[str]:
    """The files of the one DICOM series in a folder, in slice order.

    Raises:
        InputError: the folder holds no DICOM series, or several, or a damaged file.
    """
    for path in sorted(folder.iterdir()):
        if path.is_file() and (fault := dicom_fault(path)):
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
        InputError: no series or several, a slice that is cut off, missing, doubled or out of place (a tilted gantry).
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
        InputError: no files, one without a position or with another orientation, and as `read_dicom_series`.
    """
    places: list[tuple[float, Path]] = []
    orientation = None
    for file in sorted(files):
        texts = _slice_tags(file)
        here = _numbers(texts.get(ORIENTATION, ""))
        position = _numbers(texts.get(POSITION, ""))
        if len(here) != 6 or len(position) != 3:
            raise InputError(f"{file} is no DICOM slice with a position and orientation: copy the series again.")
        orientation = here if orientation is None else orientation
        if not np.allclose(here, orientation, atol=1e-3):
            raise InputError(f"{file} is turned against the other slices in {folder}: give one series alone.")
        places.append((float(np.cross(orientation[:3], orientation[3:]) @ np.array(position)), file))
    if not places:
        raise InputError(f"The folder {folder} holds no DICOM slices.")
    ordered = [file for _, file in sorted(places)]
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
    return {tag: reader.GetMetaData(tag) for tag in (POSITION, ORIENTATION) if reader.HasMetaDataKey(tag)}


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
    # A file of many frames carries its positions elsewhere, and ITK's own geometry is all there is.
    if image.GetDimension() == 3 and len(files) == image.GetSize()[2]:
        _check_positions(files, reader, image, folder)
    return image


def _check_left_out(files: list[str], folder: Path) -> None:
    """GDCM passes over a slice that is cut off as over any file that is no image; at an end no gap would show it."""
    kind = _sop_class(Path(files[0]))
    for path in sorted(set(folder.iterdir()) - set(map(Path, files))):
        if not path.is_file():
            continue
        stub = path.stat().st_size < HEADER_BYTES and path.suffix and path.suffix == Path(files[0]).suffix
        if stub or (kind is not None and _sop_class(path) == kind):
            raise InputError(f"{path} is cut off or damaged: copy the DICOM series again.")


def _sop_class(path: Path) -> bytes | None:
    """What kind of object a DICOM file holds (MediaStorageSOPClassUID); None where it does not say."""
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    if head[128:132] != b"DICM":
        return None
    match = re.search(rb"\x02\x00\x02\x00UI..([0-9.]+)", head, re.DOTALL)
    return match.group(1) if match else None


def _check_positions(files: list[str], reader: sitk.ImageSeriesReader, image: sitk.Image, folder: Path) -> None:
    """A missing slice or a tilted gantry would shift anatomy: ITK spaces the slices evenly and goes on."""
    if len(files) < 2 or not all(reader.HasMetaDataKey(number, POSITION) for number in range(len(files))):
        return
    positions = [_numbers(reader.GetMetaData(number, POSITION)) for number in range(len(files))]
    if wrong := next((file for file, place in zip(files, positions, strict=True) if len(place) != 3), None):
        raise InputError(f"{wrong} has no position of three numbers: copy the DICOM series again.")
    steps = np.diff(positions, axis=0)
    step = np.median(steps, axis=0)
    distance = float(np.linalg.norm(step))
    errors = np.linalg.norm(steps - step, axis=1)
    worst = int(np.argmax(errors))
    if errors[worst] > SLICE_TOLERANCE * distance:
        raise InputError(
            f"The DICOM series in {folder} misses slices or has some twice: from {Path(files[worst]).name} to "
            f"{Path(files[worst + 1]).name} it is {np.linalg.norm(steps[worst]):.2f} mm, elsewhere {distance:.2f} mm. "
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
