"""``teachformer data convert``: a challenge's archive into a dataset; one sub-subcommand a challenge."""

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

CHALLENGES = {
    "hecktor21": ("hecktor21", "HECKTOR 2021: CT and PET in the organisers' boxes, 1 mm"),
    "picai22": ("picai22", "PI-CAI 2022: T2W, ADC and HBV on 24 x 384 x 384 voxels"),
    "brats19": ("brats19", "BraTS 2019: FLAIR, T1, T1ce, T2; labels 1, 2, 4 become 1, 2, 3"),
    "chaos": ("chaos", "CHAOS: MR of the abdomen, DICOM with PNG labels"),
    "csv": ("csv_table", "any images named by a CSV table: case,<channel>,...,label"),
}


def add_convert(commands: Any) -> None:
    """The parser of ``data convert`` with those of the challenges."""
    text = "convert a challenge's archive into nnU-Net's raw layout"
    parser = commands.add_parser("convert", help=text, description=f"{text[0].upper()}{text[1:]}. See docs/DATA.md.")
    challenges = parser.add_subparsers(title="challenges", metavar="CHALLENGE", required=True)
    own = {
        "hecktor21": _hecktor21,
        "picai22": _picai22,
        "brats19": lambda _: None,
        "chaos": _chaos,
        "csv": _csv,
    }
    for name, (_, words) in CHALLENGES.items():
        challenge = challenges.add_parser(name, help=words, description=f"{words[0].upper()}{words[1:]}.")
        challenge.set_defaults(run_data=run_convert, challenge=name)
        what = "the table, or a folder with one CSV file" if name == "csv" else "the unpacked archive, only read"
        challenge.add_argument("source", metavar="SRC", type=Path, help=what)
        challenge.add_argument(
            "destination", metavar="DST", type=Path, help="the folder to make; the same command resumes it"
        )
        own[name](challenge)
        challenge.add_argument("--threads", type=int, metavar="N", help="cases at a time (default: all cores)")
        challenge.add_argument("--json", action="store_true", help="print one JSON object")


def _hecktor21(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--boxes", type=Path, metavar="F", help="the table of boxes (default: *bbox*.csv in SRC)")
    _add_test(parser, "44 of 224 cases, whole centres as far as that allows")


def _picai22(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--labels", type=Path, metavar="DIR", help="the repository picai_labels (default: in SRC)")
    parser.add_argument(
        "--label-folder",
        action="append",
        metavar="SUB",
        help="folder below csPCa_lesion_delineations, searched in the order given (default human_expert/resampled)",
    )
    parser.add_argument("--ai", action="store_true", help="also take AI/Bosma22a where no expert has drawn the lesion")
    parser.add_argument("--form", choices=("3d", "2d"), default="3d", help="volumes, or 24 slices each (default 3d)")
    parser.add_argument("--negatives", action="store_true", help="also take studies without significant cancer")
    _add_test(parser, "40 of 220 studies, patients whole")


def _chaos(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sequence", choices=("t1dual", "t2spir"), default="t1dual", help="which MR (default t1dual: in and out phase)"
    )
    parser.add_argument("--organs", choices=("all", "liver"), default="all", help="which labels (default all four)")


def _csv(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--labels", metavar="NAME=1,NAME=2", help="names of the label values (default label_1, ...)")
    parser.add_argument("--licence", default="not stated", metavar="TEXT", help="for dataset.json")


def _add_test(parser: argparse.ArgumentParser, paper: str) -> None:
    parser.add_argument(
        "--test",
        choices=("paper", "none"),
        default="paper",
        help=f"keep out as many cases as the paper ({paper}; its own lists are unpublished), or none (default paper)",
    )


def run_convert(arguments: argparse.Namespace) -> int:
    """``data convert``: 0 when every case is converted, 1 when some failed."""
    from ..data.convert.conversion import convert
    from ..errors import EXIT_SOME_FAILED

    module = importlib.import_module(f"..data.convert.{CHALLENGES[arguments.challenge][0]}", __package__)
    archive = module.archive(arguments.source, **_options(arguments))
    outcome = convert(archive, arguments.destination, threads=arguments.threads)
    report = {
        "challenge": archive.challenge,
        "folder": str(outcome.folder),
        "total": outcome.total,
        "converted": outcome.done,
        "already_there": outcome.already,
        "training": outcome.training,
        "test": outcome.test,
        "failed": dict(outcome.failed),
        "notes": [{"case": case, "note": note} for case, note in outcome.notes],
        "left_out": list(archive.left_out),
    }
    if arguments.json:
        print(json.dumps(report, indent=1))
        return EXIT_SOME_FAILED if outcome.failed else 0
    for case, reason in outcome.failed.items():
        print(f"failed: {case}: {reason}")
    for case, note in outcome.notes:
        print(f"note: {case}: {note}")
    for sentence in archive.left_out:
        print(f"left out: {sentence}")
    before = f", {outcome.already} of them before" if outcome.already else ""
    place = f" to {outcome.folder}" if outcome.done else ""
    print(
        f"{archive.challenge}: {outcome.done} of {outcome.total} cases converted{place}{before}: "
        f"{outcome.training} for training, {outcome.test} for testing"
    )
    if outcome.failed:
        print(f"{len(outcome.failed)} failed: mend or remove them and run the same command again.")
    return EXIT_SOME_FAILED if outcome.failed else 0


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options as the converter's ``archive`` takes them."""
    if arguments.challenge == "hecktor21":
        return {"boxes": arguments.boxes, "test": arguments.test}
    if arguments.challenge == "picai22":
        from ..data.convert.picai22 import AI, EXPERT

        folders = [*(arguments.label_folder or [EXPERT]), *([AI] if arguments.ai else [])]
        return {
            "labels": arguments.labels,
            "folders": folders,
            "form": arguments.form,
            "negatives": arguments.negatives,
            "test": arguments.test,
        }
    if arguments.challenge == "chaos":
        return {"sequence": arguments.sequence, "organs": arguments.organs}
    if arguments.challenge == "csv":
        return {"labels": _label_names(arguments.labels), "licence": arguments.licence}
    return {}


def _label_names(text: str | None) -> dict[str, int] | None:
    from ..errors import InputError

    if text is None:
        return None
    try:
        pairs = [word.split("=") for word in text.split(",")]
        return {name.strip(): int(value) for name, value in pairs}
    except ValueError as error:
        raise InputError(f"--labels '{text}' must name values, e.g. GTV=1,node=2.") from error
