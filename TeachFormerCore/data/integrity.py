"""What ITK leaves unsaid: files that are cut off, damaged or hold NaN, which it reads without an error.

It fills what a truncated NIfTI file lacks with whatever lies in memory, stops before the checksum of a compressed file,
and turns the NaN of a NIfTI file into 0.
"""

import gzip
import math
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

GZIP_MAGIC = b"\x1f\x8b"
CHUNK = 1 << 16  # bytes read at a time; deflate makes at most 1032 of one
ZLIB_OR_GZIP = zlib.MAX_WBITS | 32  # whichever a stream turns out to be
# Of two axes of an image; what rounding leaves is below, and it shifts a voxel at 300 mm by 0.3 mm.
LARGEST_COSINE = 1e-3
FLOAT_DATATYPES = {16: "f4", 64: "f8"}  # of NIfTI


def itk_reason(error: Exception) -> str:
    """The last line of an ITK error, without its C++ preamble."""
    lines = str(error).strip().splitlines() or ["no reason given"]
    return lines[-1].split("ERROR: ")[-1].strip()


@dataclass(frozen=True, kw_only=True)
class Unsaid:
    """What ITK says nothing of.

    Attributes:
        damage: what is wrong with the file's bytes, as the end of the sentence "the file ...", or None.
        non_finite: voxels of a NIfTI file that are NaN or infinite; of other files ITK reads them as they are.
    """

    damage: str | None = None
    non_finite: int = 0


def unsaid(path: Path) -> Unsaid:
    """What ITK leaves unsaid of a NIfTI, NRRD or MetaImage file (by its name), in one pass over its bytes.

    Compressed voxels are always unpacked: nothing but their checksum tells of a bit that has flipped. That takes as
    long as reading does, so it is best done at the same time; zlib does not hold Python's lock.
    """
    name = path.name.lower()
    try:
        if name.endswith((".nii", ".nii.gz")):
            return _unsaid_of_nifti(path)
        if name.endswith(".nrrd"):
            _unpack_nrrd(path)
        if name.endswith((".mha", ".mhd")):
            _unpack_metaimage(path)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        return Unsaid(damage=f"is cut off or damaged ({itk_reason(error)})")
    return Unsaid()


def non_finite_voxels(path: Path) -> int:
    """How many voxels of a NIfTI file are NaN or infinite; 0 for other files, whose voxels ITK reads as they are."""
    return unsaid(path).non_finite


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


def _unsaid_of_nifti(path: Path) -> Unsaid:
    header = _nifti_header(path)
    if header is None:
        return Unsaid()
    promised = header.offset + header.voxels * header.bits // 8
    kind = np.dtype(header.order + FLOAT_DATATYPES[header.datatype]) if header.datatype in FLOAT_DATATYPES else None
    zipped = _is_zipped(path)
    if kind is None and not zipped:
        return Unsaid(damage=_shortfall(path.stat().st_size, promised))
    held, non_finite, begun = 0, 0, b""
    with path.open("rb") as file:
        for chunk in _unpacked(file) if zipped else iter(partial(file.read, CHUNK), b""):
            if kind:
                # What lies between the header and the last voxel, whole numbers at a time.
                content = begun + chunk[max(0, header.offset - held) : max(0, promised - held)]
                whole = len(content) - len(content) % kind.itemsize
                non_finite += int((~np.isfinite(np.frombuffer(content[:whole], kind))).sum())
                begun = content[whole:]
            held += len(chunk)
    return Unsaid(damage=_shortfall(held, promised), non_finite=non_finite)


def _unpack_nrrd(path: Path) -> None:
    """ITK notices missing bytes itself, but not every wrong one."""
    fields: dict[bytes, bytes] = {}
    with path.open("rb") as file:
        while line := file.readline(CHUNK).strip():  # an empty line ends the header
            key, _, value = line.partition(b":")
            fields[key.strip().lower()] = value.strip().lower()
        if fields.get(b"encoding") in (b"gzip", b"gz") and b"data file" not in fields and b"datafile" not in fields:
            _unpack(file)


def _unpack_metaimage(path: Path) -> None:
    """ITK notices missing bytes itself, but not compressed voxels that cannot be unpacked."""
    fields: dict[str, str] = {}
    with path.open("rb") as header:
        while "ElementDataFile" not in fields and (line := header.readline(CHUNK)):
            key, _, value = os.fsdecode(line).partition("=")
            fields[key.strip()] = value.strip()
        source = fields.get("ElementDataFile", "")
        compressed = fields.get("CompressedData", "").lower() == "true"
        if not compressed or not source or source.startswith("LIST") or "%" in source:
            return
        if source.upper() == "LOCAL":
            _unpack(header)
            return
    with (path.parent / source).open("rb") as file:
        _unpack(file)


def _unpack(file: BinaryIO) -> None:
    for _chunk in _unpacked(file):
        pass


def _unpacked(file: BinaryIO) -> Iterator[bytes]:
    """What the rest of a file unpacks to: gzip members, or a zlib stream, each with its checksum verified.

    By zlib itself: Python's gzip module takes half as long again.

    Raises:
        EOFError: it ends too early.
        zlib.error: it is damaged, or followed by something else.
    """
    members, unpacker = 0, None
    while packed := file.read(CHUNK):
        # Between members, zeros may fill a block.
        while packed := packed if unpacker else packed.lstrip(b"\0"):
            unpacker = unpacker or zlib.decompressobj(ZLIB_OR_GZIP)
            yield unpacker.decompress(packed)
            packed = unpacker.unused_data
            if unpacker.eof:
                members, unpacker = members + 1, None
    if unpacker or not members:
        raise EOFError("its compressed voxels end too early")


def _shortfall(held: int, promised: int) -> str | None:
    return None if held >= promised else f"is cut off: it holds {held} of {promised} bytes"


def _is_zipped(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == GZIP_MAGIC


def _open(path: Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(path) if _is_zipped(path) else path.open("rb")
