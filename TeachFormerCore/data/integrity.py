"""What ITK leaves unsaid: files that are cut off, damaged or hold NaN, which it reads without an error.

It fills what a truncated NIfTI file lacks with whatever lies in memory, stops before the checksum of a compressed file,
and turns the NaN of a NIfTI file into 0.
"""

import gzip
import math
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import SimpleITK as sitk

GZIP_MAGIC = b"\x1f\x8b"
CHUNK = 1 << 20
# Of two axes of an image; what rounding leaves is below, and it shifts a voxel at 300 mm by 0.3 mm.
LARGEST_COSINE = 1e-3
FLOAT_DATATYPES = {16: "f4", 64: "f8"}  # of NIfTI


def itk_reason(error: Exception) -> str:
    """The last line of an ITK error, without its C++ preamble."""
    lines = str(error).strip().splitlines() or ["no reason given"]
    return lines[-1].split("ERROR: ")[-1].strip()


def damage(path: Path, image: sitk.Image) -> str | None:
    """What is wrong with the bytes of a file that ITK has read, as the end of the sentence "the file ...", or None.

    Looks at NIfTI, NRRD and MetaImage files, by name; the voxels are unpacked again only where there is a doubt.
    """
    name = path.name.lower()
    try:
        if name.endswith((".nii", ".nii.gz")):
            return _nifti_damage(path)
        if name.endswith(".nrrd"):
            return _nrrd_damage(path, image)
        if name.endswith((".mha", ".mhd")):
            return _metaimage_damage(path)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        return f"is cut off or damaged ({itk_reason(error)})"
    return None


def non_finite_voxels(path: Path) -> int:
    """How many voxels of a NIfTI file are NaN or infinite; 0 for other files, whose voxels ITK reads as they are."""
    header = _nifti_header(path) if path.name.lower().endswith((".nii", ".nii.gz")) else None
    if header is None or header.datatype not in FLOAT_DATATYPES:
        return 0
    kind = np.dtype(header.order + FLOAT_DATATYPES[header.datatype])
    count, left = 0, header.voxels * kind.itemsize
    with _open(path) as file:
        file.read(header.offset)
        while left and (chunk := file.read(min(CHUNK, left))):
            count += int((~np.isfinite(np.frombuffer(chunk, kind))).sum())
            left -= len(chunk)
    return count


def promised_voxels(path: Path) -> int:
    """How many voxels the header of a NIfTI file promises; 0 where it cannot be read, which ITK will say better."""
    header = _readable_header(path)
    return header.voxels if header else 0


def is_sheared(path: Path) -> bool:
    """Whether the axes of a NIfTI file's sform are not at right angles; ITK would go by its qform, and say nothing."""
    header = _readable_header(path)
    if header is None or header.sform is None:
        return False
    axes = np.array(header.sform).reshape(3, 4)[:, :3]
    lengths = np.linalg.norm(axes, axis=0)
    if not (np.isfinite(lengths).all() and lengths.all()):
        return False
    cosines = (axes / lengths).T @ (axes / lengths) - np.eye(3)
    return bool(np.abs(cosines).max() > LARGEST_COSINE)


@dataclass(frozen=True, kw_only=True)
class _NiftiHeader:
    order: str  # of bytes: "<" or ">"
    datatype: int
    bits: int
    voxels: int
    offset: int  # of the first voxel in the file, in bytes
    sform: tuple[float, ...] | None  # 3 x 4, by rows; None where the file has none


def _readable_header(path: Path) -> _NiftiHeader | None:
    try:
        return _nifti_header(path)
    except (OSError, EOFError, zlib.error, struct.error):
        return None


def _nifti_header(path: Path) -> _NiftiHeader | None:
    """The header of a NIfTI-1 file that holds its voxels; ITK reads no NIfTI-2."""
    with _open(path) as file:
        content = file.read(348)
    if content[344:347] != b"n+1":
        return None
    order = "<" if struct.unpack_from("<i", content)[0] == 348 else ">"
    dimensions = struct.unpack_from(f"{order}8h", content, 40)
    datatype, bits = struct.unpack_from(f"{order}2h", content, 70)
    (offset,) = struct.unpack_from(f"{order}f", content, 108)
    (sform_code,) = struct.unpack_from(f"{order}h", content, 254)
    sform = struct.unpack_from(f"{order}12f", content, 280) if sform_code > 0 else None
    if not 0 <= offset < 2**40:  # nor NaN
        raise EOFError(f"its header has the voxels begin at byte {offset:g}")
    voxels = math.prod(max(1, length) for length in dimensions[1 : 1 + dimensions[0]])
    return _NiftiHeader(order=order, datatype=datatype, bits=bits, voxels=voxels, offset=int(offset), sform=sform)


def _nifti_damage(path: Path) -> str | None:
    header = _nifti_header(path)
    if header is None:
        return None
    promised = header.offset + header.voxels * header.bits // 8
    if _is_zipped(path):
        return _gzip_damage(path, 0, promised)
    return _shortfall(path.stat().st_size, promised)


def _nrrd_damage(path: Path, image: sitk.Image) -> str | None:
    fields: dict[bytes, bytes] = {}
    with path.open("rb") as file:
        while line := file.readline(CHUNK).strip():  # an empty line ends the header
            key, _, value = line.partition(b":")
            fields[key.strip().lower()] = value.strip().lower()
        start = file.tell()
    if fields.get(b"encoding") not in (b"gzip", b"gz") or b"data file" in fields or b"datafile" in fields:
        return None
    values = image.GetNumberOfPixels() * image.GetNumberOfComponentsPerPixel()
    return _gzip_damage(path, start, values * image.GetSizeOfPixelComponent())


def _metaimage_damage(path: Path) -> str | None:
    """ITK notices missing bytes itself, but not compressed voxels that cannot be unpacked."""
    fields: dict[str, str] = {}
    with path.open("rb") as header:
        while "ElementDataFile" not in fields and (line := header.readline(CHUNK)):
            key, _, value = os.fsdecode(line).partition("=")
            fields[key.strip()] = value.strip()
        start = header.tell()
    source = fields.get("ElementDataFile", "")
    if fields.get("CompressedData", "").lower() != "true" or not source or source.startswith("LIST") or "%" in source:
        return None
    local = source.upper() == "LOCAL"
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # zlib or gzip, whichever it is
    with (path if local else path.parent / source).open("rb") as file:
        file.seek(start if local else 0)
        while not unpacker.eof and (chunk := file.read(CHUNK)):
            unpacker.decompress(chunk)
    return None if unpacker.eof else "is cut off: its compressed voxels end too early"


def _gzip_damage(path: Path, start: int, promised: int) -> str | None:
    with path.open("rb") as file:
        file.seek(-4, os.SEEK_END)
        (recorded,) = struct.unpack("<I", file.read(4))
        # A complete gzip file ends with its size modulo 2^32; anything else is unpacked to be sure.
        if recorded == promised % 2**32:
            return None
        file.seek(start)
        held = 0
        with gzip.GzipFile(fileobj=file) as unpacked:
            while chunk := unpacked.read(CHUNK):
                held += len(chunk)
    return _shortfall(held, promised)


def _shortfall(held: int, promised: int) -> str | None:
    return None if held >= promised else f"is cut off: it holds {held} of {promised} bytes"


def _is_zipped(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == GZIP_MAGIC


def _open(path: Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(path) if _is_zipped(path) else path.open("rb")
