"""``teachformer demo``: the shipped model on a synthetic thigh and, where the data is, on a real case."""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..evaluation.page import CasePage
    from ..inference.cancellation import Cancellation

DATASET, REAL_CASE = "STS_PETCT_MR", "STS_014"
PHANTOM = ("CT", "PET")  # the modalities of thigh_phantom
SHOWN = ("attention_fine", "attention_coarse", "uncertainty")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``teachformer demo``."""
    parser.add_argument(
        "--output", type=Path, default=Path("demo"), metavar="D", help="the folder to write into (default: demo)"
    )
    parser.add_argument("--model", metavar="M", help="a model's name or folder (default: the model that ships)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:0 or mps (default auto)")
    parser.add_argument("--runtime", default="auto", help="auto, torch, openvino or onnx (default auto)")


@dataclass(frozen=True, kw_only=True)
class DemoCase:
    """Files to segment, ``files`` by channel name, the expert's mask, and what is known of them."""

    name: str
    about: str
    files: dict[str, Path]
    label: Path
    seen: bool
    credit: str | None


def run(arguments: argparse.Namespace) -> int:
    """Writes the folder of each case and the page; 0, or 1 where the model could not take the real case."""
    from ..inference.cancellation import Cancellation

    with Cancellation(always=True, farewell="teachformer: error: cancelled\n") as cancellation:
        return _demonstrate(arguments, cancellation)


def _demonstrate(arguments: argparse.Namespace, cancellation: "Cancellation") -> int:
    from ..errors import EXIT_SOME_FAILED, InputError
    from ..evaluation import page, picture
    from ..inference.predictor import Predictor

    page.check_installed()
    picture.check_installed()
    predictor = Predictor(arguments.model, device=arguments.device, runtime=arguments.runtime)
    output = arguments.output
    real = _real_case(predictor.card)
    _check_place(output, predictor.card, real)
    cases = [_phantom_case(_folder(output / "phantom"), predictor.card, cancellation)]
    cases += [real] if isinstance(real, DemoCase) else []
    notes = [real] if isinstance(real, str) else []
    shown: list[CasePage] = []
    for case in cases:
        try:
            shown.append(_run_case(case, _folder(output / case.name), predictor, cancellation))
        except InputError as error:
            if not shown:
                raise
            # A model of one's own may not take the real case, e.g. for its size: the phantom is shown all the same.
            notes.append(f"{case.name} could not be segmented: {error}")
            continue
        print(_line(shown[-1], output / case.name), flush=True)
        for notice in shown[-1].statistics["notices"]:
            print(f"note: {case.name}: {notice}", file=sys.stderr)
    for note in notes:
        print(note)
    _write_page(output / "index.html", shown, predictor.card, notes, cancellation)
    print(f"Open {output / 'index.html'} in a browser.")
    return 0 if len(shown) == len(cases) else EXIT_SOME_FAILED


def _check_place(output: Path, card: dict[str, Any], real: DemoCase | str) -> None:
    """Refuses, before anything is written, a model or a folder that the demo cannot use."""
    from ..errors import InputError

    missing = [one["name"] for one in card["channels"] if one["modality"] not in PHANTOM and not one.get("optional")]
    if missing:
        raise InputError(
            f"The model {card['name']} needs {', '.join(missing)}, and the demo's phantom has {' and '.join(PHANTOM)} "
            "only: use teachformer segment with images of your own."
        )
    if isinstance(real, DemoCase) and output.resolve().is_relative_to(real.label.parent.parent.resolve()):
        raise InputError(f"{output} lies in the data folder, which is never written to: give another --output.")


def _folder(path: Path) -> Path:
    from ..errors import InputError

    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"The folder {path} could not be created ({error.strerror}): give another --output."
        ) from error
    return path


def _phantom_case(folder: Path, card: dict[str, Any], cancellation: "Cancellation") -> DemoCase:
    """Writes the phantom's own images into its folder: from there it is read as any user's case."""
    from ..data.phantom import thigh_phantom

    phantom = thigh_phantom()
    paths = {modality: folder / f"{modality.lower()}.nii.gz" for modality in phantom.images}
    with cancellation.new_files() as files:
        for modality, image in phantom.images.items():
            files.write_image(image, paths[modality])
        files.write_image(phantom.label, folder / "label.nii.gz")
    return DemoCase(
        name="phantom",
        about="A synthetic thigh with a soft-tissue tumour, drawn by TeachFormer: no patient's data, and no test of "
        "accuracy.",
        files={one["name"]: paths[one["modality"]] for one in card["channels"] if one["modality"] in paths},
        label=folder / "label.nii.gz",
        seen=False,
        credit=None,
    )


def _real_case(card: dict[str, Any]) -> DemoCase | str:
    """The real case, or why there is none, in one sentence."""
    from ..data.dataset import open_dataset
    from ..errors import InputError
    from ..evaluation.seen import was_seen
    from ..paths import find_dataset
    from .evaluate import match_channels

    try:
        dataset = open_dataset(find_dataset(DATASET))
    except InputError:
        return (
            f"The dataset {DATASET} was not found, so only the phantom is shown (set TEACHFORMER_DATA to the folder "
            "that holds it)."
        )
    case = next((case for case in dataset.cases if case.name == REAL_CASE), None)
    if case is None or case.label is None:
        return f"{dataset.folder} has no case {REAL_CASE} with a label, so only the phantom is shown."
    matched = match_channels(card["channels"], dataset)
    return DemoCase(
        name=case.name,
        about="A soft-tissue sarcoma of the thigh before treatment; the reference is the gross tumour volume drawn by "
        f"experts. Source: {dataset.reference}.",
        files={one["name"]: case.images[matched[one["name"]]] for one in card["channels"] if one["name"] in matched},
        label=case.label,
        seen=was_seen(case.patient, dataset.name, card.get("training") or {}),
        credit=f"STS data: {dataset.licence}, modified",
    )


def _run_case(case: DemoCase, folder: Path, predictor: Any, cancellation: "Cancellation") -> "CasePage":
    """Segments a case as ``teachformer segment`` does and writes its folder."""
    import time

    from ..data.grid import Grid, resample
    from ..data.image import read_image, voxels
    from ..devices import peak_memory
    from ..evaluation.overlap import dice
    from ..evaluation.page import CasePage
    from ..evaluation.picture import render_case
    from ..inference.inputs import read_inputs
    from ..inference.outputs import Outputs
    from ..inference.results import write_results

    card = predictor.card
    start = time.perf_counter()
    inputs = read_inputs([f"{channel}={file}" for channel, file in case.files.items()], card)
    prediction = predictor.run(inputs.images)
    outputs = Outputs(
        label=folder / "mask.nii.gz",
        **{name: folder / f"{name}.nii.gz" for name in SHOWN},
        statistics=folder / "statistics.json",
    )
    with cancellation.new_files() as files:
        measured = write_results(files, prediction, outputs, inputs=inputs, card=card)
    seconds = time.perf_counter() - start

    reference = read_image(case.label)
    grid = Grid.of(prediction.label)
    if not grid.same_as(Grid.of(reference)):
        reference = resample(reference, grid, nearest=True)
    overlap = dice(voxels(prediction.label) > 0, voxels(reference) > 0)
    with cancellation.new_files() as files:
        render_case(
            files.temporary(folder / "picture.png"),
            images=inputs.images,
            modalities={one["name"]: one["modality"] for one in card["channels"]},
            label=prediction.label,
            reference=reference,
            **{name: getattr(prediction, name) for name in SHOWN},
            case=case.name,
            model=f"{card['name']} {card['version']}",
            dice=overlap,
            seen=case.seen,
            credit=case.credit,
        )
    return CasePage(
        name=case.name,
        about=case.about,
        picture=folder / "picture.png",
        statistics=measured,
        dice=overlap,
        seen=case.seen,
        seconds=seconds,
        memory_mb=None if (peak := peak_memory()) is None else peak / 2**20,
        credit=case.credit,
    )


def _line(case: "CasePage", folder: Path) -> str:
    score = "no Dice (both masks empty)" if case.dice is None else f"Dice {case.dice:.3f}"
    parts = [score + (" (training case)" if case.seen else ""), f"{case.seconds:.1f} s"]
    if case.memory_mb is not None:
        parts.append(f"peak memory {case.memory_mb:.0f} MB")
    return f"{case.name}: {', '.join(parts)}, in {folder}"


def _write_page(
    path: Path, cases: list["CasePage"], card: dict[str, Any], notes: list[str], cancellation: "Cancellation"
) -> None:
    import platform
    from importlib.metadata import version

    from .. import __version__
    from ..evaluation.page import render_page

    versions = {
        "TeachFormer": __version__,
        "Python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy", "SimpleITK", "matplotlib")},
    }
    html = render_page(title="TeachFormer: demonstration", cases=cases, card=card, versions=versions, notes=notes)
    with cancellation.new_files() as files:
        files.write_text(html, path)
