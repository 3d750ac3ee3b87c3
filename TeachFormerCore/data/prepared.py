"""Prepared cases: one portable folder of normalised fp16 arrays, all that a training reads.

It holds ``plan.json`` and one ``<case>.safetensors`` per case, and needs numpy and safetensors only, so that it can be
carried to a machine that has neither SimpleITK nor the images.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .channels import Channel

PLAN_FILE = "plan.json"
PREPARATION_VERSION = 1  # raised whenever prepared arrays of the same files would differ


@dataclass(frozen=True, kw_only=True)
class PreparationPlan:
    """What prepared arrays depend on; its hash names the folder.

    Attributes:
        dataset: name, for people.
        licence: the data's, and ``reference`` where they come from.
        channels: in the order of the arrays.
        labels: name -> value, background included.
        spacing: x, y, z in mm, along the patient axes (LPS).
        patients: patient of each case.
        sources: sha256 of each source file, by path in the dataset.
        version: of the preparation code.
    """

    dataset: str
    licence: str | None
    reference: str | None
    channels: tuple[Channel, ...]
    labels: dict[str, int]
    spacing: tuple[float, float, float]
    patients: dict[str, str]
    sources: dict[str, str]
    version: int = PREPARATION_VERSION

    def key(self) -> str:
        """sha256 of everything the arrays depend on."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """An opened folder of prepared cases.

    Attributes:
        folder: where it is.
        plan: what it was made from.
        fields_of_view: extents x, y, z in mm of each case's original image.
    """

    folder: Path
    plan: PreparationPlan
    fields_of_view: dict[str, tuple[float, float, float]]

    @property
    def cases(self) -> tuple[str, ...]:
        """Case names, sorted."""
        return tuple(sorted(self.plan.patients))

    def load(self, case: str) -> tuple[np.ndarray, np.ndarray]:
        """Image ``(C, z, y, x)`` float16 and label ``(z, y, x)`` uint8 of a case."""
        from safetensors.numpy import load_file

        arrays = load_file(self.folder / f"{case}.safetensors")
        return arrays["image"], arrays["label"]


def write_plan(folder: Path, plan: PreparationPlan, fields_of_view: dict[str, tuple[float, float, float]]) -> None:
    """Writes ``plan.json``, the last file of a preparation."""
    content = {"key": plan.key(), "plan": asdict(plan), "fields_of_view": fields_of_view}
    (folder / PLAN_FILE).write_text(json.dumps(content, indent=1), encoding="utf-8")


def is_prepared(folder: Path) -> bool:
    """Whether the folder holds prepared cases."""
    return (folder / PLAN_FILE).is_file()


def open_prepared(folder: Path) -> PreparedData:
    """Opens a folder of prepared cases.

    Raises:
        InputError: no plan, of another version, changed by hand, or a case is missing.
    """
    file = folder / PLAN_FILE
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        fields = content["plan"]
        channels = tuple(Channel(**channel) for channel in fields.pop("channels"))
        plan = PreparationPlan(**fields | {"channels": channels, "spacing": tuple(fields["spacing"])})
        views = {case: tuple(extent) for case, extent in content["fields_of_view"].items()}
        key = content["key"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is not the plan of a prepared dataset ({error}): prepare it again.") from error
    if plan.version != PREPARATION_VERSION:
        raise InputError(
            f"{folder} was prepared by version {plan.version} of the preparation, this is version "
            f"{PREPARATION_VERSION}: prepare it again."
        )
    if plan.key() != key:
        raise InputError(f"{file} was changed after the preparation (its key does not fit): prepare it again.")
    missing = [case for case in plan.patients if not (folder / f"{case}.safetensors").is_file()]
    if missing:
        raise InputError(f"{folder} lacks the prepared cases {', '.join(missing)}: prepare it again.")
    return PreparedData(folder=folder, plan=plan, fields_of_view=views)  # type: ignore[arg-type]
