"""Mutated files, and what happens to them, for `test_fuzzing`: ``python fuzzing.py KINDS FIRST LAST FOLDER``.

A process of its own with little memory: a file that makes a library crash, hang or take all memory is found by how the
process ends. Prints lines of JSON: {kind, seed, outcome, detail}; outcome is "read", "refused" or "fault".
"""

import contextlib
import json
import os
import random
import re
import sys
import time
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

MEMORY = 3 * 2**30
SECONDS = 20.0  # that one file may take
IMAGES = {
    "nifti": ".nii",
    "nifti.gz": ".nii.gz",
    "nrrd": ".nrrd",
    "nrrd-raw": ".nrrd",
    "mha": ".mha",
    "mha-raw": ".mha",
}
WORDS = [
    *(b"", b"0", b"-1", b"1", b"3", b"65536", b"2147483647", b"-2147483648", b"99999999999999999999", b"1e300", b"nan"),
    *(b"inf", b"../../../etc/passwd", b"/dev/zero", b"/dev/stdin", b"a.raw", b"%d", b"\xff\xfe", b"\x00", b"x" * 5000),
    *(b"(1,0,0) (0,1,0) (0,0,0)", b"none", b"gzip", b"True", b"LIST", b"[" * 5000, b"null", b"{}", b"[]"),
]


def mutate(content: bytes, random: random.Random) -> bytes:
    """Between one and five changes: bits, bytes, words in place of numbers, lines lost or doubled, a cut."""
    data = bytearray(content)
    for _ in range(random.randint(1, 5)):
        # The head of a file says what the rest is: most changes go there.
        end = min(len(data), 600) if random.random() < 0.8 else len(data)
        place = random.randrange(max(1, end))
        kind = random.randrange(7)
        if kind == 0 and data:
            data[place % len(data)] ^= 1 << random.randrange(8)
        elif kind == 1 and data:
            data[place % len(data)] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))
        elif kind == 2:
            width = random.choice((2, 4, 8))
            data[place : place + width] = random.choice((b"\x00", b"\xff", b"\x7f")) * width
        elif kind == 3:
            numbers = list(re.finditer(rb"-?\d+(\.\d+)?", bytes(data[:2000])))
            if numbers:
                one = random.choice(numbers)
                data[one.start() : one.end()] = random.choice(WORDS)
        elif kind == 4:
            lines = bytes(data).split(b"\n")
            number = random.randrange(len(lines))
            lines[number : number + 1] = [lines[number]] * random.choice((0, 2))
            data = bytearray(b"\n".join(lines))
        elif kind == 5:
            words = list(re.finditer(rb"[^\s=:,;]+", bytes(data[:2000])))
            if words:
                one = random.choice(words)
                data[one.start() : one.end()] = random.choice(WORDS)
        else:
            data = data[: random.randrange(len(data) + 1)]
    return bytes(data)


def image_seed(kind: str, folder: Path) -> bytes:
    """A small whole image; the other channel of a case lies beside it."""
    array = np.linspace(-1000, 900, 8 * 9 * 10).reshape(8, 9, 10).astype(np.float32 if "gz" in kind else np.int16)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.5, 2.0, 2.5))
    path = folder / f"seed{IMAGES[kind]}"
    sitk.WriteImage(image, str(path), "raw" not in kind)
    content = path.read_bytes()
    path.unlink()
    return content


def read_mutated_image(kind: str, content: bytes, folder: Path) -> None:
    from TeachFormerCore.data.grid import Grid, patient_grid, resample
    from TeachFormerCore.data.image import read_finite_image

    file = folder / f"image{IMAGES[kind]}"
    file.write_bytes(content)
    image = read_finite_image(file)
    grid = Grid.of(image)
    grid.describe()
    target = patient_grid(grid, (20.0, 20.0, 20.0))
    if np.prod(target.size, dtype=float) < 1e7:
        resample(image, target)


SLICE = {
    "0008|0060": "PT",
    "0008|0018": "1.2.3.4.%d",
    "0020|000d": "1.2.3",
    "0020|000e": "1.2.3.4",
    "0020|0013": "%d",
    "0020|0032": "0\\0\\%d.5",
    "0020|0037": "1\\0\\0\\0\\1\\0",
    "0020|0052": "1.2.3.5",
    "0054|1001": "BQML",
    "0010|1030": "70",
}


def dicom_seed(folder: Path) -> bytes:
    """The second of four slices, which lie in the folder ``series``."""
    (folder / "series").mkdir(exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number in range(4):
        image = sitk.GetImageFromArray(np.linspace(-1000, 900, 90).reshape(1, 9, 10).astype(np.int16))
        for tag, value in SLICE.items():
            image.SetMetaData(tag, value % number if "%d" in value else value)
        writer.SetFileName(str(folder / "series" / f"{number}.dcm"))
        writer.Execute(image)
    return (folder / "series" / "1.dcm").read_bytes()


def read_mutated_slice(kind: str, content: bytes, folder: Path) -> None:
    from TeachFormerCore.data.image import read_finite_image
    from TeachFormerCore.data.suv import suv_factor
    from TeachFormerCore.errors import InputError
    from TeachFormerCore.inference.card import read_card_file
    from TeachFormerCore.inference.case_folder import folder_pairs

    # Nothing is in the preamble that anybody reads.
    file = folder / "series" / "1.dcm"
    file.write_bytes(bytes(128) + content[128:] if len(content) > 128 else content)
    folder_pairs(folder / "series", read_card_file(folder / "model" / "model.json"))
    read_finite_image(folder / "series")
    with contextlib.suppress(InputError):  # the seed has no dose either
        suv_factor([file])


def read_mutated_card(kind: str, content: bytes, folder: Path) -> None:
    from TeachFormerCore.inference.model_folder import load_network, read_card

    (folder / "model" / "model.json").write_bytes(content)
    load_network(folder / "model", read_card(folder / "model"))


def import_mutated_zip(kind: str, content: bytes, folder: Path) -> None:
    from TeachFormerCore.inference.model_folder import remove_model
    from TeachFormerCore.inference.model_import import import_model

    file = folder / "model.zip"
    file.write_bytes(content)
    remove_model(import_model(file).name)


def read_mutated_table(kind: str, content: bytes, folder: Path) -> None:
    from TeachFormerCore.errors import InputError
    from TeachFormerCore.inference.batch_case import BatchJob, read_case
    from TeachFormerCore.inference.card import read_card_file
    from TeachFormerCore.inference.manifest import find_cases

    (folder / "cases.csv").write_bytes(content)
    card = read_card_file(folder / "model" / "model.json")
    job = BatchJob(source=folder / "cases.csv", output=folder)
    for case in find_cases(job.source, card):
        with contextlib.suppress(InputError):
            read_case(job, case, card)


def read_mutated_state(kind: str, content: bytes, folder: Path) -> None:
    from TeachFormerCore.data.image import OutputFiles
    from TeachFormerCore.inference.batch_state import BatchState, Record, read_states
    from TeachFormerCore.inference.batch_summary import write_summary

    (folder / "out").mkdir(exist_ok=True)
    file = folder / "out" / "state.jsonl"
    file.write_bytes(content)
    BatchState(file, {}).append(Record(case="last", state="done", seconds=1.0))
    _facts, records = read_states(folder / "out")
    assert "last" in records, "a torn line has swallowed the next one"
    write_summary(folder / "out", ["a", "b", "last"], records, {}, OutputFiles())
    json.loads((folder / "out" / "summary.json").read_text(encoding="utf-8"), parse_constant=int)


def other_seed(kind: str, folder: Path) -> bytes:
    if kind == "dicom":
        return dicom_seed(folder)
    if kind == "card":
        return (folder / "model" / "model.json").read_bytes()
    if kind == "zip":
        file = folder / "seed.zip"
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted((folder / "model").iterdir()):
                archive.write(path, f"tiny/{path.name}")
        content = file.read_bytes()
        file.unlink()
        return content
    if kind == "table":
        return b'case,CT,PET,region_ras\na,ct.nii.gz,pet.nii.gz,"1,2,3,40,50,60"\nb,"x y.nrrd",b.mha,\n\xc3\xa4,c,d,\n'
    error = {"cause": "c", "fix": "f", "original": "o", "exit_code": 2}
    lines = [
        {"batch": {"model": "m", "version": "1", "files": {}, "pet_units": "suv"}},
        {"case": "a", "state": "done", "seconds": 1.5, "notices": ["n"], "error": None},
        {"case": "b", "state": "failed", "seconds": 0.5, "notices": [], "error": error},
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


READERS: dict[str, Callable[[str, bytes, Path], None]] = {
    **dict.fromkeys(IMAGES, read_mutated_image),
    "dicom": read_mutated_slice,
    "card": read_mutated_card,
    "zip": import_mutated_zip,
    "table": read_mutated_table,
    "state": read_mutated_state,
}


def main(kinds: list[str], first: int, last: int, folder: Path) -> None:
    import resource

    if {"card", "zip"} & set(kinds):
        import torch  # noqa: F401  what it takes itself is not limited

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    os.chdir(folder)
    for kind in kinds:
        content = image_seed(kind, folder) if kind in IMAGES else other_seed(kind, folder)
        for seed in range(first, last):
            # Said before, so that a crash has a name.
            print(json.dumps({"kind": kind, "seed": seed}), flush=True)
            outcome, detail = judge(kind, mutate(content, random.Random(seed)), folder)
            print(json.dumps({"kind": kind, "seed": seed, "outcome": outcome, "detail": detail}), flush=True)


def judge(kind: str, content: bytes, folder: Path) -> tuple[str, str]:
    """What became of a file."""
    from TeachFormerCore.errors import TeachFormerError

    start = time.monotonic()
    try:
        READERS[kind](kind, content, folder)
        outcome, detail = "read", ""
    except TeachFormerError as error:
        detail = str(error)
        outcome = "refused" if error.exit_code == 2 and "\n" not in detail else "fault"
    except BaseException:
        outcome, detail = "fault", traceback.format_exc()
    seconds = time.monotonic() - start
    return (outcome, detail) if seconds < SECONDS else ("fault", f"took {seconds:.0f} s; {detail}")


if __name__ == "__main__":
    main(sys.argv[1].split(","), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]).resolve())
