"""Headers of NRRD and MetaImage files, judged before ITK sees them: what it does not expect there can end the process.

Fuzzing found it to overrun its buffers on long words, and to follow numbers of dimensions below zero.
"""

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from .integrity import is_sheared, promised_voxels

HEADER_BYTES = 4 * 2**20
VALUE_LETTERS = 4000  # of a line that is not a comment or somebody's own key
LARGEST_SIZE = 2**20  # voxels along an axis
DIMENSIONS = range(1, 6)
# Deflate makes at most 1032 bytes of one; bzip2 more, but no program writes images so.
LARGEST_INFLATION = 1100

_NUMBER = r"[-+]?(\d{1,20}\.?\d{0,40}|\.\d{1,40})([eE][-+]?\d{1,3})?"
_NUMBERS = re.compile(rf"{_NUMBER}(\s+{_NUMBER})*")
_NUMBERS_OR_NAN = re.compile(rf"({_NUMBER}|nan)(\s+({_NUMBER}|nan))*", re.IGNORECASE)
_VECTOR = rf"(none|\(\s*{_NUMBER}(\s*,\s*{_NUMBER})*\s*\))"
_VECTORS = re.compile(rf"{_VECTOR}(\s+{_VECTOR})*")
_WORDS = re.compile(r"[\w .,:;?()/+-]{1,200}|\"[^\"]{0,100}\"(\s+\"[^\"]{0,100}\")*")
# Whatever is printed, as in "dim[0]"; ITK takes a colon for the end of a key, and would see another one.
_META_KEY = re.compile(rb"\s{0,99}[^\s\0-\x1f\x7f=:][^\0-\x1f\x7f=:]{0,199}")
_BOOLEAN = re.compile(r"(true|false|t|f|0|1|yes|no)", re.IGNORECASE)
# One file beside the header, and no other place.
_PLAIN_FILE = re.compile(r"[^/\\%:]{1,200}")

Fields = dict[str, str]


def header_fault(path: Path) -> str | None:
    """What is wrong with the header of an image file, as the end of the sentence "the file ...", or None.

    NRRD and MetaImage headers are read word by word, of NIfTI only size and shear; other files are not looked at.
    """
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return _inflation(path, promised_voxels(path)) or _shear(path)
    if name.endswith(".nrrd"):
        return _fault(path, _nrrd_fields, _NRRD, needed=("dimension", "sizes", "type", "encoding"))
    if name.endswith((".mha", ".mhd")):
        return _fault(path, _meta_fields, _META, needed=("NDims", "DimSize", "ElementType", "ElementDataFile"))
    return None


def _fault(
    path: Path,
    fields_of: Callable[[bytes], Iterator[tuple[str, str]]],
    checks: dict[str, Callable[[str], bool]],
    *,
    needed: tuple[str, ...],
) -> str | None:
    with path.open("rb") as file:
        content = file.read(HEADER_BYTES)
    fields: Fields = {}
    try:
        for key, value in fields_of(content):
            if key in fields and key in checks:
                return f"gives '{key}' twice in its header"
            if key in checks and not (len(value) <= VALUE_LETTERS and checks[key](value)):
                return f"has a header that cannot be used: {key} is {value[:60]!r}"
            fields[key] = value
    except ValueError as error:
        return f"has a header that cannot be used: {error}"
    missing = [key for key in needed if key not in fields]
    if missing:
        return f"has a header without {', '.join(missing)}"
    dimensions = int(fields[needed[0]])
    for key in _PER_AXIS & set(fields):
        if len(re.findall(r"\([^)]*\)|[^\s()]+", fields[key])) != dimensions:
            return f"has a header whose {key} does not have a value for each of {dimensions} dimensions"
    elsewhere = fields.get("data file") or fields.get("ElementDataFile", "LOCAL").upper() != "LOCAL"
    if not elsewhere and (fault := _inflation(path, math.prod(map(int, fields[needed[1]].split())))):
        return fault
    for key in _PER_PAIR_OF_AXES & set(fields):
        if len(fields[key].split()) != dimensions**2:
            return f"has a header whose {key} is not {dimensions} x {dimensions} numbers"
    return None


def _inflation(path: Path, voxels: int) -> str | None:
    """ITK makes room for what a header promises, before it looks whether the file can hold it."""
    if voxels > LARGEST_INFLATION * path.stat().st_size:
        return f"promises {voxels:,} voxels, more than its {path.stat().st_size:,} bytes can hold"
    return None


def _shear(path: Path) -> str | None:
    if not is_sheared(path):
        return None
    return "has axes that are not at right angles (its sform is sheared): resample it to a grid without shear first"


def _nrrd_fields(content: bytes) -> Iterator[tuple[str, str]]:
    lines = content.split(b"\n")
    if not re.fullmatch(rb"NRRD000[1-5]", lines[0].rstrip(b"\r")):
        raise ValueError("it does not begin with NRRD0001 to NRRD0005")
    for number, line in enumerate(lines[1:], start=2):
        text = line.rstrip(b"\r")
        if not text:
            return
        if text.startswith(b"#") or re.match(rb"[^:]{1,1000}:=", text):  # a comment, or somebody's own key
            if len(text) > VALUE_LETTERS * 16 or b"\0" in text:
                raise ValueError(f"line {number} is too long")
            continue
        key, colon, value = text.partition(b": ")
        if not colon:
            raise ValueError(f"line {number} is {text[:60].decode('latin-1')!r}")
        name = key.decode("latin-1").strip().lower()
        if name not in _NRRD:
            raise ValueError(f"there is no field {name[:60]!r}")
        yield _SYNONYMS.get(name, name), value.decode("latin-1").strip()
    raise ValueError("it has no end")


def _meta_fields(content: bytes) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(content.split(b"\n"), start=1):
        key, equals, value = line.partition(b"=")
        name = key.strip().decode("latin-1")  # no more is space for ITK
        if not equals or not _META_KEY.fullmatch(key) or b"\0" in value or len(value) > VALUE_LETTERS:
            raise ValueError(f"line {number} is {line[:60].decode('latin-1')!r}")
        yield name, value.decode("latin-1").strip()
        if name == "ElementDataFile":
            return


def _one_of(*words: str) -> Callable[[str], bool]:
    return lambda value: value.lower() in words


def _matching(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda value: pattern.fullmatch(value) is not None


def _whole(allowed: range) -> Callable[[str], bool]:
    return lambda value: re.fullmatch(r"-?\d{1,9}", value) is not None and int(value) in allowed


def _sizes(value: str) -> bool:
    return all(re.fullmatch(r"\d{1,7}", word) and 1 <= int(word) <= LARGEST_SIZE for word in value.split())


_NRRD_TYPES = (
    *("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"),
    *("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    *("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    *("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t"),
    *("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    *("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t", "float", "double"),
)
_NRRD: dict[str, Callable[[str], bool]] = {
    "dimension": _whole(DIMENSIONS),
    "type": _one_of(*_NRRD_TYPES),
    "sizes": _sizes,
    "encoding": _one_of("raw", "gzip", "gz", "ascii", "text", "txt", "hex", "bzip2", "bz2"),
    "endian": _one_of("little", "big"),
    "space": _matching(re.compile(r"[\w-]{1,60}")),
    "space dimension": _whole(DIMENSIONS),
    "space directions": _matching(_VECTORS),
    "space origin": _matching(re.compile(_VECTOR)),
    "measurement frame": _matching(_VECTORS),
    "spacings": _matching(_NUMBERS_OR_NAN),
    "thicknesses": _matching(_NUMBERS_OR_NAN),
    "axis mins": _matching(_NUMBERS_OR_NAN),
    "axis maxs": _matching(_NUMBERS_OR_NAN),
    "kinds": _matching(_WORDS),
    "centerings": _matching(_WORDS),
    "centers": _matching(_WORDS),
    "labels": _matching(_WORDS),
    "units": _matching(_WORDS),
    "space units": _matching(_WORDS),
    "content": _matching(re.compile(r"[^\0]{0,1000}")),
    "sample units": _matching(_WORDS),
    "min": _matching(_NUMBERS),
    "max": _matching(_NUMBERS),
    "old min": _matching(_NUMBERS),
    "old max": _matching(_NUMBERS),
    "block size": _whole(range(1, 1025)),
    "line skip": _whole(range(1001)),
    "byte skip": _whole(range(-1, 2**30)),
    "number": _matching(re.compile(r"\d{1,20}")),
    "data file": _matching(_PLAIN_FILE),
    "datafile": _matching(_PLAIN_FILE),
}
_SYNONYMS = {"datafile": "data file", "centers": "centerings"}
_META: dict[str, Callable[[str], bool]] = {
    "NDims": _whole(DIMENSIONS),
    "DimSize": _sizes,
    "ObjectType": _matching(re.compile(r"\w{1,60}")),
    "BinaryData": _matching(_BOOLEAN),
    "BinaryDataByteOrderMSB": _matching(_BOOLEAN),
    "ElementByteOrderMSB": _matching(_BOOLEAN),
    "CompressedData": _matching(_BOOLEAN),
    "CompressedDataSize": _matching(re.compile(r"\d{1,15}")),
    "ElementType": _matching(re.compile(r"MET_U?(CHAR|SHORT|INT|LONG|LONG_LONG)(_ARRAY)?|MET_(FLOAT|DOUBLE)(_ARRAY)?")),
    "ElementNumberOfChannels": _whole(range(1, 1025)),
    "HeaderSize": _whole(range(-1, 2**30)),
    "ElementDataFile": _matching(_PLAIN_FILE),
    "ElementSpacing": _matching(_NUMBERS),
    "ElementSize": _matching(_NUMBERS),
    "Offset": _matching(_NUMBERS),
    "Origin": _matching(_NUMBERS),
    "Position": _matching(_NUMBERS),
    "CenterOfRotation": _matching(_NUMBERS),
    "TransformMatrix": _matching(_NUMBERS),
    "Rotation": _matching(_NUMBERS),
    "Orientation": _matching(_NUMBERS),
    "AnatomicalOrientation": _matching(re.compile(r"[A-Za-z?]{1,10}")),
    "DistanceUnits": _matching(_WORDS),
}
_PER_PAIR_OF_AXES = {"TransformMatrix", "Rotation", "Orientation"}
# Fields with a value for each dimension; ITK believes that there are as many.
_PER_AXIS = {
    *("sizes", "space directions", "spacings", "thicknesses", "axis mins", "axis maxs"),
    *("DimSize", "ElementSpacing", "ElementSize", "Offset", "Origin", "Position", "CenterOfRotation"),
}
