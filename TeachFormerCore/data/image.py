"""Images in and out: one checked way to read a volume, one safe way to write it."""

import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from .dicom import dicom_series_files as dicom_series_files
from .dicom import read_dicom_series
from .headers import header_fault
from .integrity import itk_reason, unsaid

IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
FARTHEST_MM = 100_000.0
SHEAR_TOLERANCE = 1e-3  # of the cosines between the axes
WRITABLE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
TEMPORARY_PREFIX = ".teachformer-"
REMOVALS = 100  # attempts: a file that is opened while its folder is being emptied keeps the folder


def image_ending(path: Path) -> str:
    """The file's image ending (``.nii.gz``, ``.nrrd``, ...), lower case, or ``""``."""
    name = path.name.lower()
    return next((ending for ending in IMAGE_ENDINGS if name.endswith(ending)), "")


def read_image(path: str | Path, *, single_slice: bool = False) -> sitk.Image:
    """Reads a 3D scalar volume: a file SimpleITK reads, or a folder with one DICOM series.

    Values are as stored after the file's own slope and intercept; spacing in mm, origin and direction in LPS.

    Args:
        path: the file or folder.
        single_slice: whether a 2D image, or a volume with one slice, will do; it comes as a volume with one slice.

    Raises:
        InputError: no such file, empty, truncated, damaged, not an image, not 3D, not scalar, or several or no DICOM
            series.
    """
    return _read(Path(path), single_slice=single_slice)[0]


def read_finite_image(path: str | Path, *, single_slice: bool = False) -> sitk.Image:
    """As :func:`read_image`, but refuses the NaN and infinite values that ITK reads as 0 from a NIfTI file.

    Raises:
        InputError: as ``read_image``, or a value that is not finite.
    """
    image, non_finite = _read(Path(path), single_slice=single_slice)
    if non_finite:
        raise InputError(
            f"{path} holds {non_finite} voxels that are NaN or infinite: export the image again without them."
        )
    return image


def _read(path: Path, *, single_slice: bool) -> tuple[sitk.Image, int]:
    """A checked volume, and how many voxels that are not finite ITK has read as 0."""
    check_exists(path)
    image, non_finite = (read_dicom_series(path), 0) if path.is_dir() else _read_file(path)
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(f"{path} has {image.GetNumberOfComponentsPerPixel()} values per voxel: give a scalar image.")
    if image.GetPixelID() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        raise InputError(f"{path} has complex voxels: give a scalar image, e.g. their magnitude.")
    if single_slice and image.GetDimension() == 2:
        image = sitk.JoinSeries(image)
    if image.GetDimension() != 3:
        raise InputError(f"{path} is {image.GetDimension()}D: give a 3D volume, one file per channel.")
    _check_geometry(image, path)
    if not single_slice and 1 in image.GetSize():
        size = " x ".join(map(str, image.GetSize()))
        what = "give the folder of its DICOM series" if is_dicom_file(path) else "a 3D volume is needed"
        raise InputError(f"{path} holds a single slice ({size} voxels): {what}.")
    return image, non_finite


def is_dicom_file(path: Path) -> bool:
    """Whether a path is a file that begins as DICOM files do."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def check_exists(path: Path) -> None:
    """Refuses a path where there is nothing, or nothing that may be looked at.

    Raises:
        InputError: no such file or folder, too long a name, a folder above it that is closed to this user.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path} does not exist: check the path.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}): check the path and its permissions.") from error


def _check_geometry(image: sitk.Image, path: Path) -> None:
    """Refuses voxels of no size or of metres, places beyond any scanner, and axes that are not at right angles."""
    spacing, origin = np.array(image.GetSpacing()), np.array(image.GetOrigin())
    axes = np.reshape(image.GetDirection(), (3, 3))
    # Not "any is too large": what is no number is neither larger nor smaller.
    if not ((spacing >= 1e-4).all() and (spacing * image.GetSize() <= FARTHEST_MM).all()):
        raise InputError(f"{path} has voxels of {' x '.join(f'{mm:g}' for mm in spacing)} mm: export it again.")
    if not (np.abs(origin) <= FARTHEST_MM).all():
        raise InputError(f"{path} lies at {', '.join(f'{mm:g}' for mm in origin)} mm: export it again.")
    if not np.abs(axes.T @ axes - np.eye(3)).max() <= SHEAR_TOLERANCE:
        raise InputError(
            f"{path} has axes that are not at right angles (a sheared image): resample it on a regular grid first."
        )


def _read_file(path: Path) -> tuple[sitk.Image, int]:
    """The image of a sound file, and how many voxels that are not finite ITK has read as 0."""
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes): copy or export it again.")
    if fault := header_fault(path):
        raise InputError(f"{path} could not be read as an image, it {fault}: export it again as NIfTI, NRRD or MHA.")
    try:
        with ThreadPoolExecutor(max_workers=1) as pool:  # at the same time: each has to unpack all voxels
            looking = pool.submit(unsaid, path)
            image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(
            f"{path} could not be read as an image, it may be truncated or of another kind "
            f"({itk_reason(error)}): export it again as NIfTI, NRRD or MHA."
        ) from error
    found = looking.result()
    if found.damage:
        raise InputError(f"{path} {found.damage}: copy or export it again.")
    return image, found.non_finite


class _HeldVoxels:
    """Keeps an image alive as long as an array looks at its voxels, which SimpleITK's own view does not."""

    def __init__(self, image: sitk.Image) -> None:
        self._image = image
        self.__array_interface__ = sitk.GetArrayViewFromImage(image).__array_interface__


def voxels(image: sitk.Image) -> np.ndarray:
    """A read-only view of the voxels as ``(z, y, x)``, the order of arrays everywhere in the core.

    The image may be a temporary one, but must not be changed while the view is in use.
    """
    return np.asarray(_HeldVoxels(image))


def same_bits(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two arrays hold the same values, NaN included; twenty times as fast as NumPy's ``equal_nan``."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    whole_numbers = np.dtype(f"u{first.itemsize}")
    return np.array_equal(first.view(whole_numbers), second.view(whole_numbers))


def image_like(array: np.ndarray, reference: sitk.Image) -> sitk.Image:
    """An image with the voxels of ``array`` ``(z, y, x)`` on the grid of ``reference``."""
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(reference)
    return image


def check_writable(path: Path) -> None:
    """Refuses an output path that could not be written, before any work is done.

    Raises:
        InputError: the ending is no image format's, or the folder is missing or not writable.
    """
    if image_ending(path) not in WRITABLE_ENDINGS:
        raise InputError(f"{path} has no image ending: use one of {', '.join(WRITABLE_ENDINGS)}.")
    check_folder(path)


def check_folder(path: Path) -> None:
    """Refuses an output file whose folder is missing or not writable, or that is itself a folder."""
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the name of a file.")
    folder = _target(path).parent
    if not folder.is_dir():
        raise InputError(f"The folder {folder} for the output {path.name} does not exist: create it first.")
    if not os.access(folder, os.W_OK):
        raise InputError(f"The folder {folder} for the output {path.name} is not writable.")


def _target(path: Path) -> Path:
    """Where a file is written: where a symbolic link leads, else the path as it is."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


class OutputFiles:
    """Files that appear together or not at all: each is written into a temporary folder of its own beside its place.

    A folder, since a file can be removed for good with its folder only: whoever is about to write it (the image
    libraries open it by themselves, in another thread) would make it anew. A symbolic link is written through: its
    place is where it leads.

    Use as a context manager; on a clean exit every file is renamed to its name, on an error none remains.
    """

    def __init__(self) -> None:
        self._pending: list[tuple[Path, Path]] = []

    def __enter__(self) -> "OutputFiles":
        return self

    def temporary(self, path: Path) -> Path:
        """A name with the same image ending in a temporary folder beside the place of ``path``."""
        target = _target(path)
        try:
            folder = tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=target.parent)
        except OSError as error:
            raise _cannot_write(path, str(error.strerror)) from error
        temporary = Path(folder) / f"file{image_ending(path) or path.suffix}"
        self._pending.append((temporary, target))
        return temporary

    def write_image(self, image: sitk.Image, path: Path) -> None:
        """Writes an image and reads it back, since the image libraries do not notice every full disk."""
        temporary = self.temporary(path)
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
            same = same_bits(voxels(_read_file(temporary)[0]), voxels(image))
        except (RuntimeError, OSError) as error:
            raise _cannot_write(path, itk_reason(error)) from error
        except InputError as error:
            raise _cannot_write(path, "what was written cannot be read back") from error
        if not same:
            raise _cannot_write(path, "what was written reads back differently")

    def write_text(self, text: str, path: Path) -> None:
        """Writes a UTF-8 text file."""
        try:
            self.temporary(path).write_text(text, encoding="utf-8")
        except OSError as error:
            raise _cannot_write(path, str(error.strerror)) from error

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._publish()
        finally:
            self._remove_temporaries()

    def _remove_temporaries(self) -> None:
        for temporary, _path in self._pending:
            for _attempt in range(REMOVALS):
                shutil.rmtree(temporary.parent, ignore_errors=True)
                if not temporary.parent.exists():
                    break

    def _publish(self) -> None:
        umask = os.umask(0)
        os.umask(umask)
        for temporary, path in self._pending:
            try:
                temporary.chmod(0o666 & ~umask)  # whatever wrote it
                os.replace(temporary, path)
            except OSError as error:
                raise _cannot_write(path, str(error.strerror)) from error


def _cannot_write(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path} could not be written ({reason}): check that the disk is not full and that the folder is writable."
    )
