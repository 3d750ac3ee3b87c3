"""``teachformer data``: check a dataset, split it into folds, prepare it for training."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-subcommand per function below: its parser says ``set_defaults(run_data=...)``."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    check = _add(commands, "check", run_check, "verify every file of a dataset")
    check.add_argument("--splits", metavar="F", help="also check this splits file against the dataset")
    check.add_argument("--json", action="store_true", help="print one JSON object")

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
    prepare.add_argument(
        "--output", type=Path, metavar="DIR", help="the folder to make (default: in the runs folder, named by content)"
    )


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


def _open(arguments: argparse.Namespace) -> Any:
    from ..data.dataset import open_dataset
    from ..paths import find_dataset

    named = Path(arguments.dataset)
    path = named if named.is_file() else find_dataset(named)
    return open_dataset(path, patient_pattern=arguments.patient_pattern)


def run_check(arguments: argparse.Namespace) -> int:
    """``data check``: 0 when there is no fault (there may be warnings), 1 otherwise."""
    from dataclasses import asdict

    from ..data.verification import check_dataset
    from ..errors import EXIT_SOME_FAILED

    dataset = _open(arguments)
    findings = check_dataset(dataset, arguments.splits, show_progress=True)
    faults = sum(finding.severity == "fault" for finding in findings)
    summary = {
        "dataset": dataset.name,
        "folder": str(dataset.folder),
        "cases": len(dataset.cases),
        "patients": len(set(dataset.patients().values())),
        "channels": dataset.channels,
        "faults": faults,
        "warnings": len(findings) - faults,
    }
    if arguments.json:
        print(json.dumps({**summary, "findings": [asdict(finding) for finding in findings]}, indent=1))
    else:
        for finding in findings:
            file = Path(finding.file)
            name = file.relative_to(dataset.folder) if file.is_relative_to(dataset.folder) else file
            print(f"{finding.severity}: {name}: {finding.message}")
        print(
            f"{dataset.name}: {summary['cases']} cases of {summary['patients']} patients, channels "
            f"{', '.join(dataset.channels)}: {faults} fault(s), {summary['warnings']} warning(s)"
        )
    return EXIT_SOME_FAILED if faults else 0


def run_split(arguments: argparse.Namespace) -> int:
    """``data split``: 0 when the file is written."""
    from ..data.image import OutputFiles, check_folder
    from ..data.splits import enough_centres, make_splits, patient_centres
    from ..errors import InputError

    dataset = _open(arguments)
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
    prepared = prepare(_open(arguments), channels=channels, spacing=(x, y, z), folder=arguments.output)
    print(f"{prepared.folder}: {len(prepared.cases)} cases")
    return 0
