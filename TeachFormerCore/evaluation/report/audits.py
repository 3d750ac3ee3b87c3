"""Loss audits (``teachformer distill --audit``), which lie in run folders as ``audit.json``."""

from collections.abc import Sequence
from typing import Any

from ...errors import InputError
from ...run_files import AUDIT_FILE, read_json
from .arms import Arm
from .study import Run
from .table import Column, Table


def audit_tables(arms: Sequence[Arm]) -> list[Table]:
    """A table for each run with an audit.

    Raises:
        InputError: an ``audit.json`` that is none.
    """
    return [_table(run) for arm in arms for run in arm.runs if (run.folder / AUDIT_FILE).is_file()]


def _table(run: Run) -> Table:
    file = run.folder / AUDIT_FILE
    content: Any = read_json(file)
    try:
        about = (
            f"The student with {content['state']} (step {content['step']}), {content['batches']} batches of "
            f"{content['batch_size']} views."
        )
        rows = tuple(dict(row) for row in content["rows"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file} is not a loss audit ({error!r}): write it again with 'distill --audit'.") from error
    return Table(
        name=f"loss_audit_{run.folder.name}",
        title=f"Loss audit: {run.title}",
        about=about,
        columns=(
            Column(key="term", title="Term"),
            Column(key="teacher", title="Teacher"),
            Column(key="size", title="Size", decimals=4),
            Column(key="weight", title="Weight", decimals=4),
            Column(key="loss", title="Part of the loss", decimals=4),
            Column(key="gradient_norm", title="Gradient norm", decimals=4),
            Column(key="gradient_ratio", title="Over Eq. 3's", decimals=4),
            Column(key="cosine", title="Cosine with Eq. 3's", decimals=3),
        ),
        rows=rows,
        notes=("A cosine below 0 pulls against the labels; a gradient of a thousandth of Eq. 3's changes nothing.",),
    )
