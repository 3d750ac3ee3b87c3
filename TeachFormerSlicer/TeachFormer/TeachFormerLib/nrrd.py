"""Volumes to and from NRRD files with NumPy alone, so that a thread can do it while the GUI goes on.

Slicer's storage nodes and SimpleITK hold Python's lock as long as they read or write, which would freeze the window.
"""

import gzip
from pathlib import Path

import numpy as np

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


def read_nrrd(file):
    """The voxels ``(z, y, x)`` of a NRRD file with its data in it, raw or gzip, as ITK writes them.

    Raises:
        ValueError: another kind of file.
    """
    content = Path(file).read_bytes()
    head, _, data = content.partition(b"\n\n")
    lines = head.decode("ascii", errors="replace").splitlines()
    if not lines or not lines[0].startswith("NRRD"):
        raise ValueError(f"{file} is not a NRRD file")
    fields = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
    encoding = fields.get("encoding", "")
    if encoding in ("gzip", "gz"):
        data = gzip.decompress(data)
    elif encoding != "raw":
        raise ValueError(f"{file} has the encoding '{encoding}'")
    order = ">" if fields.get("endian") == "big" else "<"
    dtype = np.dtype(DTYPES[fields["type"]]).newbyteorder(order)
    shape = [int(n) for n in fields["sizes"].split()][::-1]
    return np.frombuffer(data, dtype).reshape(shape)
