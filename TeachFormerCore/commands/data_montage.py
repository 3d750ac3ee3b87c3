"""``teachformer data montage``: a contact sheet of a dataset's cases with the outlines of their labels."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..data.dataset import Case
    from ..evaluation.montage import MontageCase


def add_montage_options(parser: argparse.ArgumentParser) -> None:
    """The options beside the dataset."""
    parser.add_argument(
        "--output", type=Path, metavar="F.png", help="the picture (default: <dataset>_montage.png in this folder)"
    )
    parser.add_argument("--split", choices=("Tr", "Ts"), default="Tr", help="training or test cases (default Tr)")
    parser.add_argument("--cases", metavar="A,B", help="only these cases (default all)")


def run_montage(arguments: argparse.Namespace) -> int:
    """``data montage``: 0 when every case is in the picture, 1 when some could not be read."""
    from ..data.channels import modality_of
    from ..data.image import check_folder
    from ..errors import EXIT_SOME_FAILED, InputError
    from ..evaluation.montage import write_montage
    from ..evaluation.picture import check_installed
    from ..progress import Progress
    from .data import open_named

    check_installed()
    dataset = open_named(arguments, split=arguments.split)
    output = arguments.output or Path(f"{dataset.name}_montage.png")
    if output.suffix.lower() != ".png":
        raise InputError(f"{output} must end in .png.")
    check_folder(output)
    if output.resolve().is_relative_to(dataset.folder.resolve()):
        raise InputError(f"{output} lies in the data folder, which is never written to: give --output.")
    wanted = [name.strip() for name in arguments.cases.split(",")] if arguments.cases else None
    unknown = set(wanted or []) - set(dataset.patients())
    if unknown:
        raise InputError(f"{dataset.folder} has no case {', '.join(sorted(unknown))}.")
    cases = [case for case in dataset.cases if wanted is None or case.name in wanted]
    broken: list[str] = []
    with Progress(len(cases), f"drawing {dataset.name}") as progress:
        pages = write_montage(
            output,
            _read(cases, progress, broken),
            title=dataset.name,
            modalities={channel: modality_of(channel) for channel in dataset.channels},
            labels=dataset.labels,
            total=len(cases),
        )
    for sentence in broken:
        print(f"failed: {sentence}")
    print(f"{len(cases) - len(broken)} of {len(cases)} cases in {', '.join(map(str, pages))}")
    return EXIT_SOME_FAILED if broken else 0


def _read(cases: "list[Case]", progress: Any, broken: list[str]) -> "Iterator[MontageCase]":
    from ..data.image import read_image
    from ..errors import InputError
    from ..evaluation.montage import MontageCase

    for case in cases:
        try:
            images = {channel: read_image(file, single_slice=True) for channel, file in case.images.items()}
            label = None
            if case.label is not None and case.label.exists():
                label = read_image(case.label, single_slice=True)
            yield MontageCase(name=case.name, images=images, label=label)
        except InputError as error:
            broken.append(f"{case.name}: {error}")
        progress.advance()
