"""From a dataset to prepared cases: resampled along the patient axes, normalised per channel, stored once.

The same two steps, :func:`to_model_grid` for one image and ``channels.normalise``, serve inference.
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from ..files import sha256_of, sweep
from ..paths import runs_folder
from ..progress import Progress
from .channels import Channel, background_value, default_normalisation, modality_of, normalise
from .dataset import Case, Dataset
from .grid import Grid, patient_grid, resample, resample_label
from .image import read_finite_image, read_image, voxels
from .prepared import PreparationPlan, PreparedData, is_prepared, open_prepared, write_plan
from .units import check_channel


def to_model_grid(images: dict[str, sitk.Image], channels: Sequence[Channel], grid: Grid) -> np.ndarray:
    """The normalised image ``(C, z, y, x)`` float32 on the model's grid; an absent channel is 0, its background."""
    arrays = [
        normalise(
            voxels(resample(images[channel.name], grid, background=background_value(channel.modality))),
            channel.normalisation,
        )
        if channel.name in images
        else np.zeros(grid.size[::-1], np.float32)
        for channel in channels
    ]
    return np.stack(arrays)


def plan_preparation(
    dataset: Dataset, *, channels: Sequence[str], spacing: tuple[float, float, float]
) -> PreparationPlan:
    """The plan for a dataset's labelled cases, with the default normalisation of each channel's modality.

    Raises:
        InputError: a channel the dataset does not have, a case without label, or a missing file.
    """
    by_name = {name.lower(): name for name in dataset.channels}
    unknown = [name for name in channels if name.lower() not in by_name]
    if unknown:
        raise InputError(
            f"The dataset {dataset.folder} has no channel {', '.join(unknown)}: it has {', '.join(dataset.channels)}."
        )
    names = [by_name[name.lower()] for name in channels]
    files = [file for case in dataset.cases for file in _files(case, names)]
    return PreparationPlan(
        dataset=dataset.name,
        licence=dataset.licence,
        reference=dataset.reference,
        channels=tuple(
            Channel(name=name, modality=modality_of(name), normalisation=default_normalisation(modality_of(name)))
            for name in names
        ),
        labels=dataset.labels,
        spacing=spacing,
        patients=dataset.patients(),
        sources={file.relative_to(dataset.folder).as_posix(): sha256_of(file) for file in files},
    )


def prepare(
    dataset: Dataset, *, channels: Sequence[str], spacing: tuple[float, float, float], folder: Path | None = None
) -> PreparedData:
    """Prepares every case of a dataset, unless that was done before.

    The folder is built under a temporary name and renamed, so that it is whole or absent. Of several jobs that prepare
    the same at once, all use the folder of the one that ends first.

    Args:
        dataset: the source, only read.
        channels: its channels, in the order wanted.
        spacing: x, y, z in mm.
        folder: the folder to make; under ``prepared`` in the runs folder, named by the content, unless given.

    Raises:
        InputError: an image cannot be read or used, or the folder holds something else.
    """
    plan = plan_preparation(dataset, channels=channels, spacing=spacing)
    folder = folder or runs_folder() / "prepared" / f"{dataset.name}-{plan.key()[:12]}"
    occupied = folder.exists()  # before the look into it, since another job may put it there in between
    if prepared := _already_there(folder, plan):
        return prepared
    if occupied:
        raise InputError(f"{folder} exists and does not hold this preparation: name another folder or remove it.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = f".{folder.name}-"
    sweep(folder.parent, unfinished)
    building = Path(tempfile.mkdtemp(prefix=unfinished, dir=folder.parent))
    try:
        with (
            Progress(len(dataset.cases), f"preparing {dataset.name}") as progress,
            ThreadPoolExecutor(max_workers=os.cpu_count()) as pool,
        ):

            def one(case: Case) -> tuple[float, float, float]:
                view = _prepare_case(case, plan, building)
                progress.advance()
                return view

            views = dict(zip(plan.patients, pool.map(one, dataset.cases), strict=True))
        write_plan(building, plan, views)
        os.replace(building, folder)
    except BaseException as error:
        shutil.rmtree(building, ignore_errors=True)
        if isinstance(error, OSError) and (prepared := _already_there(folder, plan)):
            return prepared
        raise
    return open_prepared(folder)


def _already_there(folder: Path, plan: PreparationPlan) -> PreparedData | None:
    prepared = open_prepared(folder) if is_prepared(folder) else None
    return prepared if prepared and prepared.plan.key() == plan.key() else None


def _prepare_case(case: Case, plan: PreparationPlan, folder: Path) -> tuple[float, float, float]:
    from safetensors.numpy import save_file

    images = {
        channel.name: read_finite_image(case.images[channel.name], single_slice=True) for channel in plan.channels
    }
    reference = Grid.of(images[plan.channels[0].name])
    grid = patient_grid(reference, plan.spacing)
    for channel in plan.channels:
        check_channel(images[channel.name], channel, str(case.images[channel.name]))
    image = to_model_grid(images, plan.channels, grid)
    assert case.label is not None  # plan_preparation refuses cases without one
    label = read_image(case.label, single_slice=True)
    values = np.unique(voxels(label))
    unknown = sorted(set(values.tolist()) - set(plan.labels.values()))
    if unknown:
        raise InputError(
            f"{case.label} holds the label values {unknown}, which are not in dataset.json: "
            "run 'teachformer data check'."
        )
    classes = resample_label(label, grid)
    save_file({"image": image.astype(np.float16), "label": classes}, folder / f"{case.name}.safetensors")
    return reference.field_of_view_mm()


def _files(case: Case, channels: Sequence[str]) -> list[Path]:
    if case.label is None:
        raise InputError(f"Case {case.name} has no label file: training needs one for every case.")
    files = [*(case.images[name] for name in channels), case.label]
    for file in files:
        if not file.is_file():
            raise InputError(f"{file} does not exist: run 'teachformer data check' on the dataset.")
    return files
