"""From the configuration's ``data`` to prepared cases: prepared already, or a dataset that is prepared now."""

from pathlib import Path

from ..data.prepared import PreparedData, is_prepared, open_prepared
from ..errors import InputError
from .config import TrainConfig


def prepared_data(config: TrainConfig) -> PreparedData:
    """The prepared cases a configuration asks for.

    Raises:
        InputError: the data cannot be found or used, or was prepared with other channels or spacing.
    """
    x, y, z = (float(s) for s in config.spacing)
    spacing = (x, y, z)
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
    # Only here: a machine that is given prepared cases needs no SimpleITK.
    from ..data.dataset import open_dataset
    from ..data.preparation import prepare
    from ..paths import find_dataset

    return prepare(open_dataset(find_dataset(config.data)), channels=config.channels, spacing=spacing)
