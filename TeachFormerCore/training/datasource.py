"""From the configuration's ``data`` to prepared cases: prepared already, or a dataset that is prepared now."""

from pathlib import Path

from ..data.prepared import PreparedData, is_prepared, open_prepared
from ..errors import InputError
from ..paths import runs_folder
from .config import TrainConfig


def prepared_data(config: TrainConfig) -> PreparedData:
    """The prepared cases a configuration asks for.

    A dataset's preparation lies under ``prepared/`` in the runs folder, named by its content.

    Raises:
        InputError: the data cannot be found or used, or was prepared with other channels or spacing.
    """
    spacing = tuple(float(s) for s in config.spacing)
    named = Path(config.data)
    if is_prepared(named):
        prepared = open_prepared(named)
        channels = [channel.name.lower() for channel in prepared.plan.channels]
        if channels != [name.lower() for name in config.channels] or prepared.plan.spacing != spacing:
            raise InputError(
                f"{named} was prepared with the channels {', '.join(channels)} at {prepared.plan.spacing} mm, the "
                f"configuration asks for {', '.join(config.channels)} at {spacing} mm: prepare it again."
            )
        return prepared
    return prepare_dataset(config)


def prepare_dataset(config: TrainConfig, folder: Path | None = None) -> PreparedData:
    """Prepares the configuration's dataset, unless that was done before.

    Args:
        config: names dataset, channels and spacing.
        folder: where to; under the runs folder, named by the content, unless given.
    """
    # Only here: a machine that is given prepared cases needs no SimpleITK.
    from ..data.dataset import open_dataset
    from ..data.preparation import plan_preparation, prepare
    from ..paths import find_dataset
    from ..progress import Progress

    dataset = open_dataset(find_dataset(config.data))
    x, y, z = (float(s) for s in config.spacing)
    plan = plan_preparation(dataset, channels=config.channels, spacing=(x, y, z))
    folder = folder or runs_folder() / "prepared" / f"{dataset.name}-{plan.key()[:12]}"
    with Progress(len(dataset.cases), f"preparing {dataset.name}") as progress:
        return prepare(dataset, plan, folder, on_case=progress.advance)
