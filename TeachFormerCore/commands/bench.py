"""``teachformer bench``: time and memory, end to end and by stage, of every runtime here, and of the plain way.

Each row is measured in a process of its own, one after the other, on the same case and weights; the ratio to the plain
way is the figure, seconds belong to the machine.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..inference.cancellation import Cancellation

MEASURED = "--measure"  # what this program says to itself
TITLE = "# Speed and memory, measured"
COLUMNS = ("open", "read", "resample", "network", "post_process", "write", "total", "processor_seconds")
# How many times as fast as the plain way, by the clock and by the processor's seconds.
RATIOS = {"times_as_fast": "total", "times_as_fast_by_processor": "processor_seconds"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to measure, how often, and where to write it."""
    parser.add_argument("--model", metavar="M", help="name or folder of a model (default: the shipped student)")
    parser.add_argument(
        "--untrained",
        metavar="NETWORK",
        help="also this network with random weights, CT + PET, in windows of --size: e.g. h_denseformer_light",
    )
    parser.add_argument("--size", type=int, default=144, help="voxels of the case along an axis (default 144)")
    parser.add_argument("--repeats", type=int, default=3, help="runs, of which the median is told (default 3)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N, mps or intel:N")
    parser.add_argument("--json", action="store_true", help="print an object instead of a table")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE.md",
        help="also write the tables as a page; what it says of other machines stays",
    )
    parser.add_argument(MEASURED, metavar="JSON", help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    """Measures every row and prints the tables."""
    if arguments.measure:
        return _child(json.loads(arguments.measure))
    from ..inference.cancellation import Cancellation

    with Cancellation(always=True, farewell="teachformer: error: cancelled\n") as cancellation:
        return _measure_all(arguments, cancellation)


class Scratch:
    """The folder of everything temporary, here and in the processes that are run with it; it ends with them.

    Attributes:
        folder: removed when this is left, and when it is taken back from another thread.
    """

    def __enter__(self) -> "Scratch":
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._before = tempfile.tempdir
        self.folder = Path(tempfile.mkdtemp(prefix="teachformer-bench-"))
        tempfile.tempdir = str(self.folder)
        return self

    def __exit__(self, *_: object) -> None:
        tempfile.tempdir = self._before
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """A process that has ended."""
        # The package is importable whatever the current folder is.
        paths = filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TMPDIR": str(self.folder)}
        with self._lock:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", env=environment
            )
        with self._process as process:
            said, error = process.communicate()
        with self._lock:  # one that was killed has not ended in the sense of this function
            return subprocess.CompletedProcess(command, process.returncode, said, error)

    def take_back(self) -> bool:
        """Kills the process that runs, starts no other, and removes the folder."""
        self._lock.acquire()
        if self._process:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
        return True


def _measure_all(arguments: argparse.Namespace, cancellation: "Cancellation") -> int:
    from ..data.image import check_folder
    from ..errors import InputError
    from ..inference.model_folder import find_model

    if arguments.size < 16 or arguments.repeats < 1:
        raise InputError("--size must be at least 16 and --repeats at least 1.")
    others = {}
    if arguments.output:
        check_folder(arguments.output)
        others = sections_of(arguments.output)
    with Scratch() as scratch:
        cancellation.unfinished = scratch
        model = with_graphs(find_model(arguments.model), scratch.folder / "trained")
        models = [bench(model, arguments, scratch, as_scanned=True)]
        if arguments.untrained:
            plain = untrained(arguments.untrained, arguments.size, scratch.folder / "untrained")
            model = with_graphs(plain, scratch.folder / "untrained_graphs")
            models.append(bench(model, arguments, scratch, as_scanned=False))
        told = {**_machine(), "models": models}
    if arguments.output:
        with cancellation.new_files() as files:
            files.write_text(as_page(told, others), arguments.output)
    print(json.dumps(told, indent=1, allow_nan=False) if arguments.json else as_page(told))
    return 0


def bench(model: Path, arguments: argparse.Namespace, scratch: Scratch, *, as_scanned: bool) -> dict[str, Any]:
    """{model, version, description, image_size, images, rows, refused, cold} of one model folder."""
    from ..data.grid import Grid
    from ..data.image import read_image, voxels
    from ..inference.benchmark import PLAIN, write_case
    from ..inference.model_folder import read_card
    from ..inference.runtimes import candidates
    from ..inference.runtimes.agreement import lowest_dice
    from ..progress import Progress

    card = read_card(model)
    folder = scratch.folder / f"case_{model.name}"
    folder.mkdir()
    files = write_case(card, arguments.size, folder, as_scanned=as_scanned)
    pairs = [f"{name}={file}" for name, file in files.items()]
    # The one that the others are measured against comes last, see runtimes.candidates.
    ways = sorted(candidates(card, device=arguments.device), key=lambda one: one.is_the_measure)
    rows: list[dict[str, Any]] = []
    refused: list[str] = []
    masks: dict[str, Any] = {}
    with Progress(len(ways) + 2, f"measuring {card['name']}") as progress:
        for way in [None, *ways]:
            named = PLAIN if way is None else str(way)
            mask = folder / f"{len(masks)}.nii.gz"
            candidate = dict(vars(way)) if way else None
            task = {"candidate": candidate, "device": ways[0].device, "model": str(model), "pairs": pairs}
            row = _in_a_process({**task, "output": str(mask), "repeats": arguments.repeats}, scratch)
            progress.advance()
            if "refused" in row:
                refused.append(f"{named}: {row['refused']}")
                continue
            masks[named] = voxels(read_image(mask))
            measure = way is not None and way.is_the_measure
            rows.append({"way": named, "is_the_measure": measure, **row})
        cold = _cold(model, pairs, folder / "cold.nii.gz", scratch)
        progress.advance()
    reference = next((masks[row["way"]] for row in rows if row.pop("is_the_measure") and row["way"] in masks), None)
    plain = next((row for row in rows if row["way"] == PLAIN), None)
    for row in rows:
        row["dice_to_torch_fp32"] = None if reference is None else lowest_dice(masks[row["way"]], reference)
        for name, column in RATIOS.items():
            row[name] = plain[column] / row[column] if plain else None
    described = {"model": card["name"], "version": card["version"], "description": card["description"]}
    return {
        **described,
        "image_size": card["image_size"],
        "images": {name: Grid.of(read_image(file)).describe() for name, file in files.items()},
        "rows": rows,
        "refused": refused,
        "cold": cold,
    }


def with_graphs(model: Path, folder: Path) -> Path:
    """The model folder with graphs for what is installed here: itself, or a copy of it."""
    import importlib.util

    from ..inference.model_folder import read_card
    from ..inference.runtimes import onnx_runtime, openvino_runtime

    card = read_card(model)
    lacking = {"openvino": not openvino_runtime.graph_of(card), "onnx": onnx_runtime.GRAPH not in card["files"]}
    missing = [
        name
        for name, lacks in lacking.items()
        if lacks and importlib.util.find_spec(name) and importlib.util.find_spec("torch")
    ]
    if not missing:
        return model
    from ..inference.graphs import copy_with_graphs

    return copy_with_graphs(model, missing, folder)


def untrained(network: str, size: int, folder: Path) -> Path:
    """A model folder of a network with random weights, CT + PET at 3 mm, in windows of ``size``."""
    import torch
    from safetensors.torch import save_file

    from ..data.channels import default_normalisation
    from ..errors import InputError
    from ..inference.card import SCHEMA_VERSION
    from ..inference.model_folder import write_model
    from ..networks import build_network

    torch.manual_seed(0)
    try:
        built = build_network(network, in_channels=2, out_channels=2, image_size=(size,) * 3)
    except ValueError as error:
        raise InputError(str(error)) from error
    channels = [
        {"name": name, "modality": name, "normalisation": default_normalisation(name), "optional": False}
        for name in ("CT", "PET")
    ]
    card = {
        "schema_version": SCHEMA_VERSION,
        "name": f"{network}_{size}",
        "version": "untrained",
        "description": f"{network} with random weights, windows of {size} voxels along each axis",
        "network": {"name": network, "arguments": {}},
        "channels": channels,
        "labels": [{"value": 1, "name": "lesion", "color": [230, 85, 13], "terminology": None}],
        "spacing": [3.0, 3.0, 3.0],
        "image_size": [size] * 3,
        "field_of_view_mm": None,
        "needs_region": False,
        "region_hint": "",
        "teachers": [],
        "training": {},
        "accuracy": {},
        "seconds": {},
        "intended_use": "Timing.",
        "files": {},
    }
    with tempfile.TemporaryDirectory() as scratch:
        save_file(built.state_dict(), Path(scratch) / "weights")
        write_model(folder, card, Path(scratch) / "weights")
    return folder


def sections_of(page: Path) -> dict[str, str]:
    """What a page that is there says of machines, by their devices."""
    from ..errors import InputError

    if not page.is_file():
        return {}
    try:
        parts = page.read_text(encoding="utf-8").split("\n## ")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{page} could not be read ({error}): give another file.") from error
    if not parts[0].startswith(TITLE):
        raise InputError(f"{page} exists and is no page of 'teachformer bench': give another file.")
    return {devices: text for devices, _, text in (part.partition("\n") for part in parts[1:])}


def as_page(told: dict[str, Any], others: Mapping[str, str] | None = None) -> str:
    """The page, Markdown: a section per machine, those of ``others`` as they are, with a table per model."""
    lines = [
        TITLE,
        "",
        "Made by `teachformer bench`. Each row is a process of its own, which opens the model once and then takes the "
        "case several times from its files to the written mask; seconds are medians, in brackets the fastest and "
        "slowest. *processor* are the seconds of all cores together, which other programs disturb less. *plain* is "
        "PyTorch in float32, MONAI's sliding windows with half overlap and Gaussian weights, and every class resampled "
        "to full size, with the same weights on the same device and case. Ratios to it are what carries over to other "
        "machines.",
    ]
    packages = ", ".join(f"{name} {version}" for name, version in told["versions"].items() if version)
    own = [f"\n{told['date']}; {told['threads']} threads; {packages}."]
    for model in told["models"]:
        own += ["", *_section(model)]
    sections = {**(others or {}), told["devices"]: "\n".join(own)}
    return "\n".join(lines) + "".join(f"\n\n## {name}\n{text.rstrip()}" for name, text in sections.items()) + "\n"


def _section(model: dict[str, Any]) -> list[str]:
    window = " x ".join(map(str, model["image_size"]))
    case = "; ".join(f"{name}: {grid}" for name, grid in model["images"].items())
    lines = [
        f"### {model['model']} {model['version']}",
        "",
        f"{model['description']}. Windows of {window} (z, y, x). The case: {case}.",
        "",
        "| way | open | read | resample | network | post-process | write | total | processor | peak memory | "
        "Dice to torch fp32 | times as fast | by processor |",
        "|---|" + 12 * "---:|",
    ]
    for row in model["rows"]:
        cells = {column: f"{row[column]:.2f}" for column in COLUMNS}
        cells["total"] += f" ({row['fastest']:.2f}-{row['slowest']:.2f})"
        more = [
            "-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e9:.2f} GB",
            "-" if row["dice_to_torch_fp32"] is None else f"{row['dice_to_torch_fp32']:.4f}",
            *("-" if row[name] is None else f"{row[name]:.1f}" for name in RATIOS),
        ]
        lines.append(f"| {' | '.join([row['way'], *cells.values(), *more])} |")
    shares = [f"{row['post_process'] / row['total']:.0%} ({row['way']})" for row in model["rows"]]
    cold = model["cold"]
    lines += [
        "",
        f"Post-processing (from the network's maps to the mask on the reference's grid) is of the total: "
        f"{', '.join(shares)}.",
        "",
        f"From the start of a process to the written mask (`teachformer segment`, which took {cold['runtime']}, the "
        f"second time): {cold['seconds']:.1f} s, {cold['processor_seconds']:.1f} s of processor.",
    ]
    if model["refused"]:
        lines += ["", "Not measured: " + " ".join(model["refused"])]
    return lines


def _machine() -> dict[str, Any]:
    import datetime
    import platform

    from .. import __version__
    from ..devices import available_devices, usable_cores
    from ..versions import installed_version

    versions: dict[str, str | None] = {"TeachFormer": __version__, "Python": platform.python_version()}
    for package in ("torch", "openvino", "onnxruntime", "monai", "numpy", "SimpleITK"):
        versions[package] = installed_version(package)
    threads = int(os.environ.get("OMP_NUM_THREADS") or usable_cores())
    date = datetime.date.today().isoformat()
    devices = "; ".join(device.description for device in reversed(available_devices()))
    return {"date": date, "devices": devices, "threads": threads, "versions": versions}


def _in_a_process(task: dict[str, Any], scratch: Scratch) -> dict[str, Any]:
    """The measurement of one row, or {refused: why}."""
    command = [sys.executable, "-m", "TeachFormerCore", "bench", MEASURED, json.dumps(task)]
    done = scratch.run(command)
    if done.returncode:  # the others are measured all the same
        return {"refused": f"it failed ({' '.join(done.stderr.split())[-300:]})."}
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def _child(task: dict[str, Any]) -> int:
    from ..errors import MissingDependencyError
    from ..inference.benchmark import measure
    from ..inference.runtimes import Candidate
    from ..inference.runtimes.interface import UnsuitableError

    candidate = Candidate(**task["candidate"]) if task["candidate"] else None
    try:
        row = measure(
            candidate, Path(task["model"]), task["pairs"], Path(task["output"]), task["repeats"], device=task["device"]
        )
    except (UnsuitableError, MissingDependencyError) as error:
        row = {"refused": str(error)}
    print(json.dumps(row))
    return 0


def _cold(model: Path, pairs: list[str], output: Path, scratch: Scratch) -> dict[str, Any]:
    """{runtime, seconds, processor_seconds} of a whole process, what the first one remembers being there."""
    from ..errors import TeachFormerError

    command = [sys.executable, "-m", "TeachFormerCore", "segment", "--model", str(model), "--output", str(output)]
    command += [word for pair in pairs for word in ("--input", pair)]
    for _ in range(2):
        before, start = sum(os.times()[2:4]), time.perf_counter()
        done = scratch.run(command)
        seconds, processor = time.perf_counter() - start, sum(os.times()[2:4]) - before
        if done.returncode:
            raise TeachFormerError(f"'teachformer segment' failed: {done.stderr.strip()[-500:]}")
    runtime = done.stdout.strip().rpartition("(")[2].rstrip(")")
    return {"runtime": runtime, "seconds": seconds, "processor_seconds": processor}
