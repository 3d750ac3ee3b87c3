"""``scores.json`` of a report: every score in it, so that a later report needs no predictions of runs that are gone.

A run is known by the sha256 of its weights, an ensemble by those of its members in their order.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...run_files import read_json
from ..calibration import Reliability
from ..detection import Detections
from ..lesions import LesionCounts
from ..scores import Score
from .arm_results import VolumeResult
from .study import Run

SCORES = "scores.json"
PLACE = ("arm", "fold", "seed")  # where a result stands in a study; not what it is of


@dataclass
class StoredScores:
    """Scores by what made them: whether they are of cases kept out of the whole cross-validation, and the weights.

    Attributes:
        earlier: those of an earlier report.
        entries: those of this one, some of them from the earlier.
    """

    earlier: dict[tuple[bool, tuple[str, ...]], list[VolumeResult]] = field(default_factory=dict)
    entries: dict[tuple[bool, tuple[str, ...]], list[VolumeResult]] = field(default_factory=dict)

    def add(self, members: Sequence[Run], results: Sequence[VolumeResult], *, kept_out: bool) -> None:
        """Keeps the results of a run, or of an ensemble of several."""
        self.entries[kept_out, _weights(members)] = list(results)

    def find(
        self, members: Sequence[Run], *, kept_out: bool, arm: str, fold: int | str, seed: int
    ) -> list[VolumeResult]:
        """Earlier results of a run, or of an ensemble of several, at a place of this study; none if there are none."""
        found = self.earlier.get((kept_out, _weights(members)), [])
        return [replace(result, arm=arm, fold=fold, seed=seed) for result in found]

    def as_json(self) -> dict[str, Any]:
        """The content of the file."""
        entries = [
            {"kept_out": kept_out, "weights": weights, "volumes": [_plain(result) for result in results]}
            for (kept_out, weights), results in self.entries.items()
        ]
        return {"entries": entries}


def read_scores(file: Path) -> StoredScores:
    """The scores of an earlier report.

    Raises:
        InputError: not such a file.
    """
    content = read_json(file)
    try:
        entries = {
            (bool(entry["kept_out"]), tuple(map(str, entry["weights"]))): list(map(_result, entry["volumes"]))
            for entry in content["entries"]
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{file} is not the scores.json of a report ({error!r}): make that report again.") from error
    return StoredScores(earlier=entries)


def _weights(members: Sequence[Run]) -> tuple[str, ...]:
    return tuple(str(run.manifest.get("weights_sha256", run.folder)) for run in members)


def _plain(result: VolumeResult) -> dict[str, Any]:
    return {name: value for name, value in _lists(asdict(result)) if name not in PLACE}


def _lists(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield name, dict(_lists(value))
        else:
            yield name, value.tolist() if isinstance(value, np.ndarray) else value


def _result(plain: Mapping[str, Any]) -> VolumeResult:
    scores = [Score(**score | {"lesions": LesionCounts(**score["lesions"])}) for score in plain["scores"]]
    bins, found = plain["reliability"], plain["detected"]
    candidates = tuple((float(confidence), bool(true)) for confidence, true in found["candidates"])
    made = {
        "scores": tuple(scores),
        "reliability": None if bins is None else Reliability(**{name: np.array(each) for name, each in bins.items()}),
        "detected": Detections(**found | {"candidates": candidates}),
    }
    return VolumeResult(**dict(plain) | made | {"arm": "", "fold": "", "seed": 0})
