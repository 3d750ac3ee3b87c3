"""``teachformer report``: tables, statistics, figures and one page from run folders."""

import argparse
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..evaluation.report.arms import NetworkFacts
    from ..evaluation.report.cases import Cohort
    from ..evaluation.report.study import Run, Study


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``teachformer report``."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of runs or cross-validations, by path or name")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="write the report into this folder")
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="the data of the runs, prepared or not (default: as in their configuration)",
    )
    parser.add_argument(
        "--kept-out",
        metavar="DIR",
        help="the cases kept out of the cross-validation, prepared or not (default: as in the configuration)",
    )
    parser.add_argument(
        "--scores",
        type=Path,
        metavar="F",
        help="scores.json of an earlier report, for runs whose predictions are gone",
    )
    parser.add_argument("--title", metavar="TEXT", help="the report's heading")
    parser.add_argument("--json", action="store_true", help="print the tables as JSON too")


def run(arguments: argparse.Namespace) -> int:
    """Writes the report; 0, or 1 where a finished run could not be used."""
    import json
    import sys

    from ..data.image import OutputFiles
    from ..errors import EXIT_SOME_FAILED, InputError
    from ..evaluation.report.document import PAGE, check_installed, make_report, summary, write_report
    from ..evaluation.report.stored_scores import read_scores
    from ..evaluation.report.study import read_study

    check_installed()
    study = read_study([_folder_of(name) for name in arguments.runs])
    described = study.example.manifest["data"]
    cohort = _cohort(study, arguments.data or study.example.config["data"], described["preparation"])
    kept_out = None
    if (tested := study.kept_out) and tested.kept_out:
        named = arguments.kept_out or tested.config["kept_out"]
        kept_out = _cohort(study, named, tested.kept_out["preparation"], split="Ts")
    stored = read_scores(arguments.scores) if arguments.scores else None
    output = arguments.output
    if (output / "manifest.json").exists() or (output / "plan.json").exists():
        raise InputError(f"{output} is a run or prepared data, which a report is never written into: give another.")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The folder {output} could not be created ({error.strerror}): give another.") from error
    report = make_report(study, cohort, describe=_describe, title=arguments.title, kept_out=kept_out, stored=stored)
    with OutputFiles() as files:
        write_report(report, output, files)
    if arguments.json:
        print(json.dumps(summary(report), indent=1, allow_nan=False))
    else:
        for question, sentences in report.findings.items():
            print("\n".join([question, *(f"  {sentence}" for sentence in sentences)]))
        print(f"Open {output / PAGE} in a browser.")
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    for text in report.damaged:
        print(f"teachformer: not in the report: {text}", file=sys.stderr)
    return EXIT_SOME_FAILED if report.damaged else 0


def _folder_of(name: str) -> Path:
    """A run's folder, by path or by its name under the runs folder."""
    from ..paths import runs_folder

    return Path(name) if Path(name).is_dir() else runs_folder() / name


def _cohort(study: "Study", data: str, preparation: str, *, split: str = "Tr") -> "Cohort":
    """The prepared cases that the runs were trained on, or those (``Ts``) that they were tested on."""
    from ..data.dataset import open_dataset
    from ..data.preparation import prepare
    from ..data.prepared import is_prepared, open_prepared
    from ..data.regions import REGIONS
    from ..errors import InputError
    from ..evaluation.report.cases import Cohort
    from ..paths import find_dataset

    config, described = study.example.config, study.example.manifest["data"]
    named, option = Path(data), "--data" if split == "Tr" else "--kept-out"
    if is_prepared(named):
        prepared = open_prepared(named)
    else:
        try:
            dataset = open_dataset(find_dataset(named), split=split)
        except InputError as error:
            raise InputError(f"The data of the runs is needed to score them; give it with {option}. {error}") from error
        x, y, z = (float(edge) for edge in config["spacing"])
        prepared = prepare(dataset, channels=config["channels"], spacing=(x, y, z))
    if prepared.plan.key() != preparation:
        raise InputError(
            f"The runs were {'trained' if split == 'Tr' else 'tested'} on {described['dataset']} as it was prepared "
            f"then; {named} is other data, or it has changed since: give the prepared folder of that time with "
            f"{option}."
        )
    # BraTS is trained as labels and evaluated as regions; the plan of prepared cases does not keep them.
    nested = "brats" in prepared.plan.dataset.casefold() and set(prepared.plan.labels.values()) == {0, 1, 2, 3}
    return Cohort(
        dataset=prepared.plan.dataset,
        licence=prepared.plan.licence,
        patients=prepared.plan.patients,
        labels={name: value for name, value in prepared.plan.labels.items() if value > 0},
        spacing=prepared.plan.spacing,
        channels=described["channels"],
        load=prepared.load,
        regions=REGIONS if nested else {},
    )


def _describe(run: "Run") -> "NetworkFacts":
    """The size of a run's network.

    Raises:
        InputError: its manifest names one that cannot be built.
    """
    import json

    from ..errors import InputError
    from ..run_files import MANIFEST_FILE

    network = run.manifest["network"]
    classes, channels = len(run.manifest["data"]["labels"]), len(run.config["channels"])
    try:
        return _count(network["name"], json.dumps(network["arguments"]), channels, classes, run.window)
    except (ValueError, RuntimeError, ArithmeticError, LookupError) as error:  # whatever arguments lead to
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"{run.folder / MANIFEST_FILE} names a network that cannot be built ({reason}): copy the run again."
        ) from error


@cache
def _count(name: str, arguments: str, channels: int, classes: int, window: tuple[int, ...]) -> "NetworkFacts":
    """Counted on the meta device: without memory or arithmetic; once for all arms of one network."""
    import json

    import torch

    from ..evaluation.report.arms import NetworkFacts
    from ..networks import NETWORKS, build_network
    from ..networks.counting import measure

    with torch.device("meta"):
        network = build_network(
            name,
            in_channels=channels,
            out_channels=classes,
            spatial_dims=len(window),
            image_size=window,
            **json.loads(arguments),
        )
        counts = measure(network, torch.empty(1, channels, *window))
    return NetworkFacts(role=NETWORKS[name].role, parameters=counts.parameters, flops=counts.flops)
