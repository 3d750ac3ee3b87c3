"""``teachformer evaluate``: a model's scores on a dataset, beside baselines that need no model."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import SimpleITK as sitk

    from ..data.dataset import Case, Dataset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``teachformer evaluate``."""
    parser.add_argument("--model", metavar="M", help="a model's name or folder (default: the model that ships)")
    parser.add_argument(
        "--data",
        required=True,
        metavar="DIR",
        help="an nnU-Net raw folder, by path or name, or a MONAI datalist (.json)",
    )
    parser.add_argument("--split", choices=("Tr", "Ts"), default="Tr", help="imagesTr or imagesTs (default Tr)")
    parser.add_argument(
        "--splits", type=Path, metavar="FILE", help="an nnU-Net splits_final.json: score one fold's 'val'"
    )
    parser.add_argument("--fold", type=int, metavar="K", help="the fold of --splits, from 0")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="write summary.json and per_case.csv into this folder"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON instead of a table")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default auto)")
    parser.add_argument("--runtime", default="auto", help="how the network is run (default auto)")


def run(arguments: argparse.Namespace) -> int:
    """Scores every case; 0, or 1 where a case failed."""
    import json
    import sys
    from collections import Counter

    from ..data.dataset import open_dataset
    from ..data.image import OutputFiles
    from ..errors import EXIT_SOME_FAILED, MissingDependencyError
    from ..evaluation.baselines import BASELINES, SUV_2_5
    from ..evaluation.scores import Score
    from ..evaluation.seen import was_seen
    from ..evaluation.summary import per_case_csv, summarise
    from ..evaluation.surface import check_installed
    from ..evaluation.table import render
    from ..inference.predictor import Predictor
    from ..paths import find_dataset
    from ..progress import Progress

    named = Path(arguments.data)
    dataset = open_dataset(named if named.is_file() else find_dataset(named), split=arguments.split)
    cases = _chosen_cases(dataset, arguments.splits, arguments.fold)
    if arguments.output:
        _prepare_output(arguments.output, dataset)
    check_installed()
    predictor = Predictor(arguments.model, device=arguments.device, runtime=arguments.runtime)
    card = predictor.card
    channels = match_channels(card["channels"], dataset)
    labels, notices = _labels_to_score(card, dataset)
    parts = _parts_to_score(labels, dataset)
    _check_files(cases, channels, card)
    pet = next((one["name"] for one in card["channels"] if one["modality"] == "PET" and one["name"] in channels), None)
    if pet is None or not all(case.images[channels[pet]].is_file() for case in cases):
        pet = None
        notices.append(f"{SUV_2_5} is left out: it needs a PET channel of the model in every case.")

    scores: list[Score] = []
    baselines: dict[str, list[Score]] = {name: [] for name in BASELINES if name != SUV_2_5 or pet}
    failed: list[dict[str, str]] = []
    heard: Counter[str] = Counter()
    seconds: list[float] = []
    with Progress(len(cases), f"evaluating {card['name']} on {dataset.name}") as progress:
        for case in cases:
            seen = was_seen(case.patient, dataset.name, card.get("training") or {})
            try:
                rows, heard_now, took = _score_case(case, predictor, channels, parts, pet, seen)
            except MissingDependencyError:
                raise
            except Exception as error:  # of whatever kind: the other cases go on
                progress.close()
                failed.append({"case": case.name, "error": str(error) or type(error).__name__})
                print(f"teachformer: case {case.name} failed: {failed[-1]['error']}", file=sys.stderr)
            else:
                scores += rows.pop("model")
                for name in baselines:
                    baselines[name] += rows[name]
                heard.update(dict.fromkeys(heard_now, 1))
                seconds.append(took)
            progress.advance()

    notices += [f"{text} ({count} of {len(cases)} cases)" for text, count in heard.items()]
    summary = summarise(
        scores,
        model=card["name"],
        dataset=dataset.name,
        split=arguments.split,
        baselines={name: baselines.get(name) for name in BASELINES},
        weights_sha256=card["files"]["weights.safetensors"],
        device=str(predictor.device),
        seconds_per_case=sum(seconds) / len(seconds) if seconds else None,
        failed=failed,
        notices=notices,
    )
    text = json.dumps(summary, indent=2, allow_nan=False)
    if arguments.output:
        with OutputFiles() as files:
            files.write_text(text + "\n", arguments.output / "summary.json")
            files.write_text(per_case_csv(scores, dataset=dataset.name), arguments.output / "per_case.csv")
    print(text if arguments.json else render(summary))
    for notice in notices:
        print(f"note: {notice}", file=sys.stderr)
    if summary["seen_cases"]:
        print(
            f"warning: {summary['seen_cases']} of {len(cases)} cases are training cases of {card['name']}: "
            "their scores do not tell how it does on new patients.",
            file=sys.stderr,
        )
    if failed:
        names = ", ".join(one["case"] for one in failed)
        print(f"teachformer: {len(failed)} of {len(cases)} cases failed: {names}", file=sys.stderr)
    return EXIT_SOME_FAILED if failed else 0


def _chosen_cases(dataset: "Dataset", splits: Path | None, fold: int | None) -> list["Case"]:
    """Every case, or those of one fold's ``val``; each with a label file."""
    from ..data.splits import load_splits
    from ..errors import InputError

    cases = {case.name: case for case in dataset.cases}
    if (splits is None) != (fold is None):
        raise InputError(
            "--splits and --fold belong together: give the splits file and the number of one of its folds."
        )
    if splits is not None and fold is not None:
        folds = load_splits(splits)
        if not 0 <= fold < len(folds):
            raise InputError(f"The splits file {splits} has no fold {fold}: give a number from 0 to {len(folds) - 1}.")
        names = sorted(folds[fold]["val"])
        unknown = [name for name in names if name not in cases]
        if unknown or not names:
            found = f"names the case '{unknown[0]}', which {dataset.folder} does not have" if names else "is empty"
            raise InputError(f"'val' of fold {fold} in {splits} {found}: is it the splits file of this dataset?")
        cases = {name: cases[name] for name in names}
    for case in cases.values():
        if case.label is None or not case.label.is_file():
            where = f" ({case.label} does not exist)" if case.label else ""
            raise InputError(f"The case '{case.name}' has no label file{where}: only labelled cases can be evaluated.")
    return list(cases.values())


def _prepare_output(output: Path, dataset: "Dataset") -> None:
    from ..data.image import check_folder
    from ..errors import InputError

    if output.resolve().is_relative_to(dataset.folder.resolve()):
        raise InputError(f"{output} lies in the data folder {dataset.folder}, which is never written to: give another.")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The folder {output} could not be created ({error.strerror}): give another.") from error
    for name in ("summary.json", "per_case.csv"):
        check_folder(output / name)


def match_channels(wanted: list[dict[str, Any]], dataset: "Dataset") -> dict[str, str]:
    """The dataset's channel for each of the model's: by name, whatever the case, else the only one of its modality.

    Args:
        wanted: the card's ``channels``, whose order the result has; one that is ``optional`` may be absent from it.
        dataset: its further channels are ignored.

    Raises:
        InputError: the dataset lacks a channel that the model needs.
    """
    from ..data.channels import modality_of
    from ..errors import InputError

    by_name = {name.casefold(): name for name in dataset.channels}
    matched = {one["name"]: by_name[one["name"].casefold()] for one in wanted if one["name"].casefold() in by_name}
    free = [name for name in dataset.channels if name not in matched.values()]
    missing = [one for one in wanted if one["name"] not in matched]
    for one in missing:
        same = [name for name in free if modality_of(name) == one["modality"]]
        rivals = sum(other["modality"] == one["modality"] for other in missing)
        if len(same) == 1 and rivals == 1:
            matched[one["name"]] = same[0]
        elif not one.get("optional"):
            raise InputError(
                f"The model needs the channel {one['name']} ({one['modality']}), which {dataset.folder} does not have "
                f"or not under a name that tells it apart: its channels are {', '.join(dataset.channels)}."
            )
    return {one["name"]: matched[one["name"]] for one in wanted if one["name"] in matched}


def _labels_to_score(card: dict[str, Any], dataset: "Dataset") -> tuple[dict[str, int], list[str]]:
    """The model's labels by name, without those that the dataset says it does not have, and notices of these."""
    from ..errors import InputError

    labels = {str(one["name"]): int(one["value"]) for one in card["labels"] if int(one["value"]) != 0}
    for name, value in labels.items():
        if dataset.labels.get(name, value) != value:
            raise InputError(
                f"The label '{name}' is {value} in the model {card['name']} and {dataset.labels[name]} in "
                f"{dataset.folder}: renumber the dataset's labels."
            )
    declared = set(dataset.labels.values()) - {0} or set(labels.values())
    scored = {name: value for name, value in labels.items() if value in declared}
    left_out = [name for name in labels if name not in scored]
    if not scored:
        raise InputError(f"The model {card['name']} and {dataset.folder} have no label value in common.")
    return scored, [f"The model's label '{name}' is not scored: the dataset does not have it." for name in left_out]


def _parts_to_score(labels: dict[str, int], dataset: "Dataset") -> dict[str, tuple[int, ...]]:
    """The label values of what is scored: each label by itself, or the regions (unions) that the dataset names."""
    from ..errors import InputError

    for name, values in dataset.regions.items():
        if not set(values) <= set(labels.values()):
            raise InputError(f"The region '{name}' of {dataset.folder} is made of label values that the model lacks.")
    return dataset.regions or {name: (value,) for name, value in labels.items()}


def _check_files(cases: list["Case"], channels: dict[str, str], card: dict[str, Any]) -> None:
    """Refuses, before the first prediction, images that are not there and label values the model does not know."""
    import numpy as np

    from ..data.image import read_image, voxels
    from ..errors import InputError

    optional = {one["name"] for one in card["channels"] if one.get("optional")}
    known = {0, *(int(one["value"]) for one in card["labels"])}
    for case in cases:
        for channel, name in channels.items():
            if channel not in optional and not case.images[name].is_file():
                raise InputError(
                    f"The case '{case.name}' lacks the channel {channel}: {case.images[name]} does not exist."
                )
        label = read_image(case.label, single_slice=True)  # type: ignore[arg-type]  # _chosen_cases has looked
        unknown = [value for value in np.unique(voxels(label)).tolist() if value not in known]
        if unknown:
            raise InputError(
                f"{case.label} holds the value {unknown[0]:g}, which the model {card['name']} does not know: "
                f"it has {', '.join(map(str, sorted(known)))}."
            )


def _score_case(
    case: "Case",
    predictor: Any,
    channels: dict[str, str],
    parts: dict[str, tuple[int, ...]],
    pet: str | None,
    seen: bool,
) -> tuple[dict[str, list[Any]], list[str], float]:
    """Scores of the model and each baseline, on the label file's grid; the prediction's notices and seconds."""
    import time

    import numpy as np

    from ..data.grid import Grid
    from ..data.image import read_finite_image, read_image, voxels
    from ..errors import InputError
    from ..evaluation.baselines import baseline_masks
    from ..evaluation.scores import score
    from ..inference.inputs import check_inputs

    files = {channel: case.images[name] for channel, name in channels.items() if case.images[name].is_file()}
    images = {channel: read_finite_image(file, single_slice=True) for channel, file in files.items()}
    check_inputs(images, predictor.card, sources={channel: str(file) for channel, file in files.items()})
    label = read_image(case.label, single_slice=True)  # type: ignore[arg-type]
    if not Grid.of(label).overlaps(Grid.of(next(iter(images.values())))):
        raise InputError(
            f"{case.label} lies beside its image in space, they do not overlap: check both files' origins."
        )
    start = time.monotonic()
    prediction = predictor.run(images)
    seconds = time.monotonic() - start
    reference = voxels(label)
    predicted = _on_grid_of(label, prediction.label, nearest=True)
    suv = _on_grid_of(label, images[pet], nearest=False) if pet else None
    masks = baseline_masks(reference.shape, None if suv is None else voxels(suv))
    rows: dict[str, list[Any]] = {name: [] for name in ("model", *masks)}
    for name, values in parts.items():
        expected = np.isin(reference, values)
        for who, mask in {"model": np.isin(voxels(predicted), values), **masks}.items():
            rows[who].append(
                score(mask, expected, spacing=label.GetSpacing()[::-1], case=case.name, label=name, seen=seen)
            )
    return rows, list(prediction.notices), seconds


def _on_grid_of(reference: "sitk.Image", image: "sitk.Image", *, nearest: bool) -> "sitk.Image":
    from ..data.grid import Grid, resample

    grid = Grid.of(reference)
    return image if grid.same_as(Grid.of(image)) else resample(image, grid, nearest=nearest)
