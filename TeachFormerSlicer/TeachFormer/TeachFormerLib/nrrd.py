"""Volumes to and from NRRD files with NumPy alone, so that a thread can do it while the GUI goes on.

Slicer's storage nodes and SimpleITK hold Python's lock as long as they read or write, which would freeze the window.
"""

import gzip
import sys
from pathlib import Path

import numpy as np

# Bytes that are read at once.
PART = 1 << 22
TYPES = {
    "int8": "int8",
    "uint8": "uint8",
    "int16": "int16",
    "uint16": "uint16",
    "int32": "int32",
    "uint32": "uint32",
    "int64": "int64",
    "uint64": "uint64",
    "float32": "float",
    "float64": "double",
}
# The words ITK writes for a type, beside NRRD's short ones.
DTYPES = {
    **{word: name for name, word in TYPES.items()},
    "signed char": "int8",
    "unsigned char": "uint8",
    "uchar": "uint8",
    "short": "int16",
    "unsigned short": "uint16",
    "int": "int32",
    "unsigned int": "uint32",
}


def write_nrrd(file, array, ijk_to_lps):
    """Writes ``array`` ``(z, y, x)``, not compressed; ``ijk_to_lps`` is ``(4, 4)``, voxels to millimetres."""
    array = np.asarray(array)
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if array.dtype.name not in TYPES:
        raise ValueError(f"voxels of type {array.dtype.name} cannot be written")
    matrix = np.asarray(ijk_to_lps, float)
    vectors = " ".join("(" + ",".join(repr(float(v)) for v in matrix[:3, axis]) + ")" for axis in range(3))
    header = [
        "NRRD0004",
        f"type: {TYPES[array.dtype.name]}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {' '.join(str(n) for n in array.shape[::-1])}",
        f"space directions: {vectors}",
        "kinds: domain domain domain",
        "endian: little",
        "encoding: raw",
        f"space origin: ({','.join(repr(float(v)) for v in matrix[:3, 3])})",
        "",
        "",
    ]
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    with Path(file).open("wb") as stream:
        stream.write("\n".join(header).encode("ascii"))
        for plane in little:  # in parts, so that Python's lock is free in between
            stream.write(np.ascontiguousarray(plane).data)


def read_nrrd(file, make=np.empty):
    """The voxels ``(z, y, x)`` of a NRRD file with its data in it, raw or gzip, as ITK writes them.

    Args:
        make: from a shape and a type to the array that is filled and answered, e.g. one in VTK's memory.

    Raises:
        ValueError: another kind of file, or one that ends early.
    """
    with Path(file).open("rb") as stream:
        if not stream.readline().startswith(b"NRRD"):
            raise ValueError(f"{file} is not a NRRD file")
        fields = {}
        for line in iter(stream.readline, b""):
            if not line.strip():
                break
            name, colon, value = line.decode("ascii", errors="replace").strip().partition(": ")
            if colon:
                fields[name] = value
        encoding = fields.get("encoding", "")
        if encoding not in ("raw", "gzip", "gz"):
            raise ValueError(f"{file} has the encoding '{encoding}'")
        dtype = np.dtype(DTYPES[fields["type"]])
        array = make(tuple(int(n) for n in fields["sizes"].split()[::-1]), dtype)
        wanted = memoryview(array.reshape(-1)).cast("B")
        if _fill(wanted, stream if encoding == "raw" else gzip.GzipFile(fileobj=stream)) != len(wanted):
            raise ValueError(f"{file} ends before its last voxel")
    if (fields.get("endian") == "big") != (sys.byteorder == "big") and dtype.itemsize > 1:
        array.byteswap(inplace=True)
    return array


def _fill(memory, stream):
    """Reads into memory, a part at a time, so that Python's lock is free in between; answers how many bytes came."""
    place = 0
    while place < len(memory):
        count = stream.readinto(memory[place : place + PART])
        if not count:
            break
        place += count
    return place
