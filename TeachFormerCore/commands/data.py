"""``teachformer data``: check a dataset, split it into folds, prepare it for training; convert, fetch and look at one.

The last three have files of their own beside this one.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .data_convert import add_convert
from .data_fetch import add_fetch
from .data_montage import add_montage_options, run_montage

if TYPE_CHECKING:
    from ..data.dataset import Dataset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-subcommand each: its parser says ``set_defaults(run_data=...)``."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    check = _add(commands, "check", run_check, "verify every file of a dataset")
    check.add_argument("--splits", metavar="F", help="also check this splits file against the dataset")
    check.add_argument("--fingerprint", action="store_true", help="also print spacings, intensities and volumes")
    check.add_argument("--json", action="store_true", help="print one JSON object, with the fingerprint")

    split = _add(commands, "split", run_split, "write cross-validation folds, grouped by patient")
    split.add_argument("--output", required=True, type=Path, metavar="F", help="the splits file to write (.json)")
    split.add_argument("--folds", type=int, default=5, help="number of folds (default 5)")
    split.add_argument("--seed", type=int, default=0, help="another seed gives other folds (default 0)")
    split.add_argument(
        "--centre-pattern",
        metavar="RE",
        help="regular expression with one group, the centre, matched at the start of the case name; whole centres stay "
        "together where there are at least as many as folds (default: 'centre_pattern' of dataset.json)",
    )

    prepare = _add(commands, "prepare", run_prepare, "make the portable folder of arrays that training reads")
    prepare.add_argument("--channels", required=True, metavar="CT,PET", help="channels, in the network's order")
    prepare.add_argument("--spacing", required=True, metavar="X,Y,Z", help="the model's grid in mm")
    prepare.add_argument("--split", choices=("Tr", "Ts"), default="Tr", help="imagesTr, or imagesTs with labels (Tr)")
    prepare.add_argument(
        "--output", type=Path, metavar="DIR", help="the folder to make (default: in the runs folder, named by content)"
    )

    add_montage_options(_add(commands, "montage", run_montage, "draw every case with its labels as a contact sheet"))
    add_convert(commands)
    add_fetch(commands)


def _add(commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    """A sub-subcommand on one dataset."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(run_data=run)
    parser.add_argument(
        "dataset", metavar="DIR", help="an nnU-Net raw folder, by path or name, or a MONAI datalist (.json)"
    )
    parser.add_argument(
        "--patient-pattern",
        metavar="RE",
        help="regular expression with one group, the patient, matched at the start of the case name "
        "(default: 'patient_pattern' of dataset.json, else each case is a patient)",
    )
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Runs the sub-subcommand; returns the exit code."""
    return int(arguments.run_data(arguments))


def open_named(arguments: argparse.Namespace, *, split: str = "Tr") -> "Dataset":
    """The dataset of the arguments, by path or name."""
    from ..data.dataset import open_dataset
    from ..paths import find_dataset

    named = Path(arguments.dataset)
    path = named if named.is_file() else find_dataset(named)
    return open_dataset(path, split=split, patient_pattern=arguments.patient_pattern)


def run_check(arguments: argparse.Namespace) -> int:
    """``data check``: 0 when there is no fault (there may be warnings), 1 otherwise."""
    from dataclasses import asdict

    from ..data.verification import examine_dataset
    from ..errors import EXIT_SOME_FAILED

    dataset = open_named(arguments)
    # Of a folder only: a datalist is one split.
    has_test = not Path(arguments.dataset).is_file() and any((dataset.folder / "imagesTs").glob("[!.]*_0000.*"))
    kept_out = open_named(arguments, split="Ts") if has_test else None
    examination = examine_dataset(dataset, arguments.splits, test=kept_out, show_progress=True)
    findings, found = examination.findings, examination.fingerprint
    faults = sum(finding.severity == "fault" for finding in findings)
    summary = {
        "dataset": dataset.name,
        "folder": str(dataset.folder),
        "cases": len(dataset.cases),
        "test_cases": len(kept_out.cases) if kept_out is not None else 0,
        "patients": len(set(dataset.patients().values())),
        "channels": dataset.channels,
        "faults": faults,
        "warnings": len(findings) - faults,
    }
    if arguments.json:
        everything = {**summary, "findings": [asdict(finding) for finding in findings], "fingerprint": found}
        print(json.dumps(everything, indent=1, allow_nan=False))
    else:
        if arguments.fingerprint:
            print("\n".join(_fingerprint_lines(found)))
        for finding in findings:
            file = Path(finding.file)
            inside = file != dataset.folder and file.is_relative_to(dataset.folder)
            name = file.relative_to(dataset.folder) if inside else dataset.name if file == dataset.folder else file
            print(f"{finding.severity}: {name}: {finding.message}")
        kept = f" and {summary['test_cases']} kept out" if kept_out is not None else ""
        print(
            f"{dataset.name}: {summary['cases']} cases of {summary['patients']} patients{kept}, channels "
            f"{', '.join(dataset.channels)}: {faults} fault(s), {summary['warnings']} warning(s)"
        )
    return EXIT_SOME_FAILED if faults else 0


def _fingerprint_lines(found: dict[str, Any]) -> list[str]:
    """The fingerprint for people: medians, and ranges in brackets."""

    def triple(spread: dict[str, Any] | None) -> str:
        if spread is None:
            return "unknown"
        median, low, high = (" x ".join(f"{v:.4g}" for v in spread[key]) for key in ("median", "min", "max"))
        return median if low == high else f"{median} [{low} to {high}]"

    def numbers(values: dict[str, float] | None) -> str:
        return "none" if values is None else ", ".join(f"{name} {value:.4g}" for name, value in values.items())

    orientations = ", ".join(f"{code} {count}" for code, count in found["orientations"].items())
    lines = [
        f"spacing {triple(found['spacing_mm'])} mm",
        f"size {triple(found['size'])} voxels, {triple(found['extent_mm'])} mm",
        f"orientation {orientations}, {found['oblique_cases']} oblique",
    ]
    lines += [f"channel {channel}: {numbers(values)}" for channel, values in found["channels"].items()]
    for name, label in found["labels"].items():
        volume = label["volume_ml"]
        if volume is not None:
            size = f"{volume['median']:.4g} mL [{volume['min']:.4g} to {volume['max']:.4g}]"
            lines.append(f"label {label['value']} {name}: in {label['cases']} of {found['cases']} cases, {size}")
            lines += [f"  {channel}: {numbers(values)}" for channel, values in label["channels"].items()]
    return lines


def run_split(arguments: argparse.Namespace) -> int:
    """``data split``: 0 when the file is written."""
    from ..data.image import OutputFiles, check_folder
    from ..data.splits import enough_centres, make_splits, patient_centres
    from ..errors import InputError

    dataset = open_named(arguments)
    output = arguments.output.resolve()
    if output.is_relative_to(dataset.folder.resolve()):
        raise InputError(
            f"{arguments.output} lies in the data folder {dataset.folder}, which is never written to: give another "
            "place."
        )
    check_folder(output)
    centres = patient_centres(dataset, arguments.centre_pattern)
    splits = make_splits(dataset, folds=arguments.folds, seed=arguments.seed, groups=centres)
    with OutputFiles() as files:
        files.write_text(json.dumps(splits, indent=1) + "\n", output)
    patients = dataset.patients()
    for number, fold in enumerate(splits):
        counts = [
            f"{side} {len(fold[side])} cases of {len({patients[name] for name in fold[side]})} patients"
            for side in ("train", "val")
        ]
        print(f"fold {number}: {', '.join(counts)}")
    if centres and not enough_centres([centres.get(patient) for patient in set(patients.values())], arguments.folds):
        count = len(set(centres.values()))
        print(f"{count} centres are fewer than {arguments.folds} folds: centres were not kept together.")
    print(f"wrote {arguments.output} (seed {arguments.seed})")
    return 0


def run_prepare(arguments: argparse.Namespace) -> int:
    """``data prepare``: says where the prepared cases lie."""
    from ..data.preparation import prepare
    from ..errors import InputError

    try:
        x, y, z = (float(word) for word in arguments.spacing.split(","))
    except ValueError as error:
        raise InputError(f"The spacing '{arguments.spacing}' must be three numbers in mm, e.g. 3,3,3.") from error
    channels = [name.strip() for name in arguments.channels.split(",")]
    dataset = open_named(arguments, split=arguments.split)
    prepared = prepare(dataset, channels=channels, spacing=(x, y, z), folder=arguments.output)
    print(f"{prepared.folder}: {len(prepared.cases)} cases")
    return 0
