"""From the configuration's ``data`` and ``kept_out`` to prepared cases: prepared already, or prepared now."""

from pathlib import Path

from ..data.prepared import PreparedData, is_prepared, open_prepared
from ..data.splits import FoldSplit, read_splits
from ..errors import InputError
from .config import TrainConfig


def prepared_data(config: TrainConfig) -> PreparedData:
    """The prepared cases a configuration asks for.

    Raises:
        InputError: the data cannot be found or used, or was prepared with other channels or spacing.
    """
    return _prepared(config, config.data, split="Tr")


def kept_out_data(config: TrainConfig, prepared: PreparedData) -> PreparedData | None:
    """The prepared cases that are kept out of the whole cross-validation; None where the configuration names none.

    Raises:
        InputError: as for :func:`prepared_data`; or labels that differ from those of the data, or a patient who is in
            both.
    """
    if config.kept_out is None:
        return None
    kept_out = _prepared(config, config.kept_out, split="Ts")
    if kept_out.plan.labels != prepared.plan.labels:
        raise InputError(
            f"The cases kept out ({config.kept_out}) have the labels {kept_out.plan.labels}, the data has "
            f"{prepared.plan.labels}: both must be of one dataset."
        )
    both = sorted(set(kept_out.plan.patients.values()) & set(prepared.plan.patients.values()))
    if both:
        raise InputError(
            f"The patient {', '.join(both)} is among the cases kept out ({config.kept_out}) and in the data "
            f"({config.data}): who is trained on cannot be kept out."
        )
    return kept_out


def fold_split(config: TrainConfig, prepared: PreparedData) -> FoldSplit:
    """The cases of a configuration's fold; by the paper's protocol nothing is chosen on tune cases, and there are none.

    Raises:
        InputError: see :func:`read_splits`.
    """
    tuned = config.protocol == "sound"
    return read_splits(config.splits, config.fold, prepared.plan.patients, seed=config.seed, tuned=tuned)


def _prepared(config: TrainConfig, data: str, *, split: str) -> PreparedData:
    x, y, z = (float(s) for s in config.spacing)
    spacing = (x, y, z)
    named = Path(data)
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

    return prepare(open_dataset(find_dataset(data), split=split), channels=config.channels, spacing=spacing)
