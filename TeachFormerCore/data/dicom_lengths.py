"""The lengths that a DICOM file gives of its elements, judged before GDCM sees them: it makes room for what they say.

Fuzzing found that one wrong byte in a file of 1 kB makes it ask for gigabytes.
"""

import struct
from pathlib import Path
from typing import BinaryIO

PREAMBLE = 132  # bytes, the last four of them "DICM"
TRANSFER_SYNTAX = 0x00020010
PIXEL_DATA = 0x7FE00010
ITEMS = range(0xFFFEE000, 0xFFFEE100)  # an item of a sequence, and the ends of items and sequences
UNDEFINED = 0xFFFFFFFF
LONG_KINDS = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
IMPLICIT = b"1.2.840.10008.1.2"
# Big endian, which is retired, and deflated: GDCM is left alone with these.
OTHERS = (b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99")


def dicom_fault(path: Path) -> str | None:
    """What is wrong with the lengths in a DICOM file, as the end of the sentence "the file ...", or None.

    Every element up to the voxels is looked at, those inside sequences too; a file without DICOM's preamble is not.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(PREAMBLE)[-4:] != b"DICM":
            return None
        syntax = b""
        while len(head := file.read(8)) == 8:
            group, element = struct.unpack_from("<2H", head)
            tag = group << 16 | element
            if group != 2 and syntax in OTHERS:
                return None
            length, holds_elements = _length(file, head, tag, implicit=group != 2 and syntax == IMPLICIT)
            if length != UNDEFINED and length > size - file.tell():
                return f"is cut off or damaged: its element ({group:04x},{element:04x}) promises {length:,} bytes"
            if tag == PIXEL_DATA:
                return None
            if tag == TRANSFER_SYNTAX:
                syntax = file.read(length).strip(b"\0 ")
            elif not holds_elements:
                file.seek(length, 1)
    return None


def _length(file: BinaryIO, head: bytes, tag: int, *, implicit: bool) -> tuple[int, bool]:
    """An element's length in bytes, and whether what follows are elements again."""
    kind, (short, long) = head[4:6], (struct.unpack_from("<H", head, 6)[0], struct.unpack_from("<I", head, 4)[0])
    if tag in ITEMS:
        return long, True
    if implicit:
        return long, long == UNDEFINED
    if kind in LONG_KINDS:
        long = int.from_bytes(file.read(4), "little")
        return long, kind == b"SQ" or long == UNDEFINED
    return short, False
