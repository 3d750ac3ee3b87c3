"""Run folders and cross-validation folders as one study: what is finished, what is not, what belongs together."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...run_files import (
    CONFIG,
    CONFIG_FILE,
    CROSSVAL_FILE,
    MANIFEST_FILE,
    METRICS_FILE,
    misfit,
    read_json,
    read_manifest,
)

NAME = re.compile(r"(?P<arm>.+?)_fold(?P<fold>\w+?)_seed(?P<seed>\d+)")
Fold = int | str


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """A finished training.

    Attributes:
        arm: what it is an example of; runs of one arm differ in fold and seed only.
        folder: where it lies.
        manifest: its ``manifest.json``.
    """

    arm: str
    folder: Path
    manifest: Mapping[str, Any]

    @property
    def config(self) -> Mapping[str, Any]:
        """The resolved configuration."""
        return self.manifest["config"]

    @property
    def fold(self) -> Fold:
        """Number of its fold, or ``all``."""
        return self.config["fold"]

    @property
    def seed(self) -> int:
        """Of the training."""
        return int(self.config["seed"])

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.arm}, fold {self.fold}, seed {self.seed}"

    @property
    def teachers(self) -> list[str]:
        """Names of the folders of the runs that taught it."""
        return [Path(one["run"]).name for one in self.manifest["teachers"]]

    @property
    def kept_out(self) -> Mapping[str, Any] | None:
        """What it was tested on beside its val cases: cases that the whole cross-validation keeps out."""
        return self.manifest.get("kept_out")

    @property
    def window(self) -> tuple[int, ...]:
        """The size that the network was built for, z, y, x (y, x in 2D)."""
        return tuple(self.config["image_size"] or self.config["patch_size"])

    def unusable(self, why: str) -> "Unfinished":
        """It, as one that is in no figure."""
        return Unfinished(arm=self.arm, fold=self.fold, seed=self.seed, why=why, damaged=True)


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """A run that is not in the figures, and why; damaged: it has ended, and cannot be used."""

    arm: str
    fold: Fold
    seed: int
    why: str
    damaged: bool = False


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is compared with each other.

    Attributes:
        name: for the title.
        protocols: hash of each cross-validation's protocol, by its name.
        runs: finished ones.
        unfinished: the others.
        ensembles: arms to average, by the name of the ensemble, as the cross-validations declare them.
        planned: configuration of one run of each arm that is trained, as they declare it.
        seconds_of: arms that get the time of another, and that other.
        order: the arms in the order of their declaration.
    """

    name: str
    protocols: Mapping[str, str]
    runs: tuple[Run, ...]
    unfinished: tuple[Unfinished, ...]
    ensembles: Mapping[str, tuple[str, ...]]
    order: tuple[str, ...]
    planned: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seconds_of: Mapping[str, str] = field(default_factory=dict)

    @property
    def example(self) -> Run:
        """Any finished run: data, channels, spacing and labels are the same in all."""
        return self.runs[0]

    @property
    def kept_out(self) -> Run | None:
        """Any run that was tested on the cases kept out of the cross-validation: they are the same for all."""
        return next((run for run in self.runs if run.kept_out), None)


def read_study(folders: Sequence[Path]) -> Study:
    """Reads folders of runs and of cross-validations.

    Raises:
        InputError: a folder that is neither, nothing finished, a run given twice, or runs that cannot be compared
            (other data, or folds that keep out other patients).
    """
    reading = _Reading()
    for folder in folders:
        reading.read(folder)
    if not reading.runs:
        damaged = [one.why for one in reading.unfinished if one.damaged]
        waiting = f" ({len(reading.unfinished)} are not finished)" if reading.unfinished else ""
        named = ", ".join(map(str, folders))
        if damaged:
            raise InputError(f"{named}: there is no run that can be used: {damaged[0]}")
        raise InputError(f"{named}: there is no finished run to report on{waiting}; train one to its end first.")
    runs = tuple(reading.runs)
    _check_comparable(runs)
    finished = {(run.arm, str(run.fold), run.seed) for run in runs}
    unfinished = [one for one in reading.unfinished if (one.arm, str(one.fold), one.seed) not in finished]
    found = dict.fromkeys([*reading.order, *(run.arm for run in runs), *(one.arm for one in unfinished)])
    return Study(
        name=folders[0].resolve().name + (f" and {len(folders) - 1} more" if len(folders) > 1 else ""),
        protocols=reading.protocols,
        runs=runs,
        unfinished=tuple(unfinished),
        ensembles=reading.ensembles,
        order=tuple(found),
        planned=reading.planned,
        seconds_of=reading.seconds_of,
    )


@dataclass
class _Reading:
    runs: list[Run] = field(default_factory=list)
    unfinished: list[Unfinished] = field(default_factory=list)
    ensembles: dict[str, tuple[str, ...]] = field(default_factory=dict)
    protocols: dict[str, str] = field(default_factory=dict)
    planned: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    seconds_of: dict[str, str] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)

    def read(self, folder: Path) -> None:
        if (folder / CROSSVAL_FILE).is_file():
            self._read_crossval(folder)
            return
        parts = NAME.fullmatch(folder.resolve().name)
        arm = parts["arm"] if parts else folder.resolve().name
        if (folder / MANIFEST_FILE).is_file() or (folder / CONFIG_FILE).is_file():
            fold, seed = (parts["fold"], int(parts["seed"])) if parts else ("", 0)
            self._read_run(folder, arm, fold, seed)
        else:
            raise InputError(
                f"{folder} is neither a run nor a cross-validation (it has no {MANIFEST_FILE}, {CONFIG_FILE} or "
                f"{CROSSVAL_FILE}): give the folder that 'train', 'distill' or 'crossval' wrote."
            )

    def _read_crossval(self, folder: Path) -> None:
        file = folder / CROSSVAL_FILE
        content = read_json(file)
        try:
            self.protocols[str(content["name"])] = str(content["protocol"])
            self.order += [str(arm) for arm in content["arms"]]
            for arm, described in content["arms"].items():
                if (described or {}).get("ensemble_of"):
                    self.ensembles[arm] = tuple(described["ensemble_of"])
                if (described or {}).get("seconds_of"):
                    self.seconds_of[arm] = str(described["seconds_of"])
            if wrong := misfit(planned := content.get("configs", {}), {str: CONFIG}, "configs"):
                raise ValueError(wrong)
            self.planned |= planned
            jobs = [(str(job["arm"]), job["fold"], int(job["seed"]), Path(job["run"]).name) for job in content["jobs"]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{file} is not what 'crossval' writes ({error!r}): run 'crossval' again.") from error
        for arm, fold, seed, name in jobs:
            self._read_run(folder / name, arm, fold, seed)

    def _read_run(self, folder: Path, arm: str, fold: Fold, seed: int) -> None:
        if not (folder / MANIFEST_FILE).is_file():
            self.unfinished.append(Unfinished(arm=arm, fold=fold, seed=seed, why=_progress(folder)))
            return
        try:
            run = Run(arm=arm, folder=folder, manifest=read_manifest(folder))
        except InputError as error:
            self.unfinished.append(Unfinished(arm=arm, fold=fold, seed=seed, why=str(error), damaged=True))
            return
        if (run.arm, run.fold, run.seed) in [(one.arm, one.fold, one.seed) for one in self.runs]:
            raise InputError(
                f"{run.title} is there twice ({folder} is the second): give each run once, and runs of different "
                "experiments names of their own."
            )
        if not run.manifest["patients"]["validation"]:
            why = "it keeps no patient out, so it cannot be scored"
            self.unfinished.append(Unfinished(arm=arm, fold=run.fold, seed=run.seed, why=why))
        else:
            self.runs.append(run)


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The rows of a run's ``metrics.csv``, empty cells left out; none where there is no such file."""
    try:
        with (folder / METRICS_FILE).open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        return [{name: float(value) for name, value in row.items() if name and value} for row in rows]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError):
        return []  # a row that is being written; the curves are no figure that is reported


def _progress(folder: Path) -> str:
    rows = read_metrics(folder)
    if rows and "step" in rows[-1]:
        return f"running or stopped at step {rows[-1]['step']:.0f}"
    return "started" if (folder / CONFIG_FILE).is_file() else "not started"


def _check_comparable(runs: Sequence[Run]) -> None:
    first = runs[0]
    kept_out: dict[Fold, Run] = {}
    tested: Run | None = None
    for run in runs:
        if run.manifest["data"]["preparation"] != first.manifest["data"]["preparation"]:
            raise InputError(
                f"{first.folder} and {run.folder} were trained on different data ({first.manifest['data']['dataset']} "
                f"and {run.manifest['data']['dataset']}, or prepared differently): report on each by itself."
            )
        if run.kept_out:
            tested = tested or run
            if run.kept_out["preparation"] != tested.manifest["kept_out"]["preparation"]:
                raise InputError(
                    f"{tested.folder} and {run.folder} were tested on different cases kept out: report on each by "
                    "itself."
                )
        other = kept_out.setdefault(run.fold, run)
        if run.manifest["patients"]["validation"] != other.manifest["patients"]["validation"]:
            raise InputError(
                f"{other.folder} and {run.folder} have the same fold {run.fold}, but keep different patients out: "
                "they were trained with different splits and cannot be compared."
            )
