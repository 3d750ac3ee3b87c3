"""Pictures of single cases, chosen by rule: reference, teacher, student alone, distilled.

The distilled arm is the one with the highest mean Dice, its student alone and its best teacher stand beside it. The
cases are those with the largest loss, the median and the largest gain of Dice from student alone to distilled; where a
case was scored with several seeds, the first common one is shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...run_files import PREDICTIONS_FOLDER
from ..overlap import dice
from ..picture import PREDICTION_COLOUR, REFERENCE_COLOUR
from .arms import Arm, student_alone
from .cases import Cohort, Volume, read_prediction
from .comparisons import METRIC, best_teacher
from .figures import INK, new_figure
from .study import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN_SUV = 10.0
COLUMN_INCHES, LEFT_INCHES, TOP_INCHES, GAP_INCHES = 2.2, 0.55, 0.78, 0.06


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which arms and cases are shown.

    Attributes:
        arms: by what they are, e.g. ``teacher``.
        cases: patient and why it was chosen.
    """

    arms: dict[str, Arm]
    cases: tuple[tuple[str, str], ...]


def select(arms: Sequence[Arm]) -> Selection | None:
    """The arms and patients by the rule of this module; None where nothing distilled has its student alone."""
    distilled = [arm for arm in arms if arm.kind == "distilled" and student_alone(arm, arms)]
    if not distilled:
        return None
    best = max(distilled, key=lambda arm: arm.results.mean(METRIC) or 0.0)
    alone = student_alone(best, arms)
    assert alone is not None
    ours, theirs = best.results.values(METRIC), alone.results.values(METRIC)
    teacher = best_teacher(best, arms)
    shown = {"Teacher": teacher} if teacher else {}
    shown |= {"Student alone": alone, "Distilled": best}
    pictured = [_with_predictions(arm) for arm in shown.values()]
    there = set(ours).intersection(theirs, *pictured)
    gains = sorted((ours[name] - theirs[name], name) for name in there)
    if not gains:
        return None
    chosen = {
        gains[0][1]: "Largest loss" if gains[0][0] < 0 else "Smallest gain",
        gains[(len(gains) - 1) // 2][1]: "Median",
        gains[-1][1]: "Largest gain" if gains[-1][0] > 0 else "Smallest loss",
    }
    return Selection(
        arms=shown,
        cases=tuple((name, f"{why}: {100 * (ours[name] - theirs[name]):+.1f} points") for name, why in chosen.items()),
    )


def panels(selection: Selection, cohort: Cohort) -> "Figure | None":
    """Rows are cases, columns the images with the reference, then each arm; the slice is the reference's largest."""
    from matplotlib.lines import Line2D

    shown = [_Row.of(patient, why, selection.arms, cohort) for patient, why in selection.cases]
    rows = [row for row in shown if row is not None]
    if not rows:
        return None
    images = min(2, len(cohort.channels))
    columns = images + len(selection.arms)
    heights = [min(2.0, row.aspect(cohort)) * COLUMN_INCHES for row in rows]
    width = LEFT_INCHES + columns * (COLUMN_INCHES + GAP_INCHES)
    height = TOP_INCHES + sum(heights) + len(rows) * GAP_INCHES
    figure = new_figure(width, height)
    titles = [channel_title(cohort.channels[index]) for index in range(images)]
    titles += [f"{what}\n{arm.title}" for what, arm in selection.arms.items()]
    shown_arms = [None] * images + list(selection.arms.values())
    below = height - TOP_INCHES
    for row, tall in zip(rows, heights, strict=True):
        below -= tall
        for column, (arm, title) in enumerate(zip(shown_arms, titles, strict=True)):
            left = LEFT_INCHES + column * (COLUMN_INCHES + GAP_INCHES)
            axes = figure.add_axes((left / width, below / height, COLUMN_INCHES / width, tall / height))
            row.draw(axes, cohort, column if arm is None else 0, arm)
            if row is rows[0]:
                axes.set_title(title, size=8.5, color=INK)
        place = (0.5 * LEFT_INCHES / width, (below + tall / 2) / height)
        figure.text(*place, f"{row.volume.name}\n{row.why}", rotation=90, size=8.5, color=INK, ha="center", va="center")
        below -= GAP_INCHES
    marks = [(REFERENCE_COLOUR, "dashed", "reference"), (PREDICTION_COLOUR, "solid", "prediction")]
    figure.legend(
        handles=[Line2D([], [], color=colour, lw=2, ls=style, label=name) for colour, style, name in marks],
        loc="upper left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=2,
        frameon=False,
        fontsize=8,
    )
    return figure


def channel_title(channel: Mapping[str, Any]) -> str:
    """Its name and the shown range."""
    low, high, unit = _window(channel["normalisation"])
    return f"{channel['name']}" if unit is None else f"{channel['name']}, {low:g} to {high:g} {unit}"


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One case: its volume, the slice shown and what each arm made of it."""

    volume: Volume
    why: str
    slice: int
    predictions: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, patient: str, why: str, arms: Mapping[str, Arm], cohort: Cohort) -> "_Row | None":
        """None where the arms have no common volume of the patient."""
        for volume in cohort.volumes(cohort.cases_of([patient])):
            runs = {arm.name: _run_of(arm, volume) for arm in arms.values()}
            if all(runs.values()):
                areas = (volume.label > 0).sum(axis=(1, 2))
                predictions = {
                    name: read_prediction(run.folder / PREDICTIONS_FOLDER, volume, cohort.classes)[0]
                    for name, run in runs.items()
                    if run
                }
                return cls(volume=volume, why=why, slice=int(areas.argmax()), predictions=predictions)
        return None

    def aspect(self, cohort: Cohort) -> float:
        """Height over width of the slice."""
        _, dy, dx = cohort.spacing_zyx
        return self.volume.label.shape[1] * dy / (self.volume.label.shape[2] * dx)

    def draw(self, axes: "Axes", cohort: Cohort, channel: int, arm: Arm | None) -> None:
        image = self.volume.image[channel, self.slice].astype(np.float32)
        facts = cohort.channels[channel]
        shown, colours = _shown(image, facts["normalisation"])  # type: ignore[arg-type]
        _, dy, dx = cohort.spacing_zyx
        height, width = image.shape
        extent = (0.0, width * dx, height * dy, 0.0)
        axes.imshow(shown, cmap=colours, vmin=0, vmax=1, extent=extent, interpolation="bilinear")
        _outline(axes, self.volume.label[self.slice], cohort, REFERENCE_COLOUR, "dashed")
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        if arm is None:
            ink = "black" if colours.endswith("_r") else "white"
            # The grid runs along the patient's axes: to the patient's left and to the back.
            axes.text(0.02, 0.5, "R", transform=axes.transAxes, color=ink, size=8, ha="left", va="center")
            axes.text(0.5, 0.98, "A", transform=axes.transAxes, color=ink, size=8, ha="center", va="top")
            if channel == 0:
                _scale_bar(axes, width * dx, height * dy)
            return
        predicted = self.predictions[arm.name]
        _outline(axes, predicted[self.slice], cohort, PREDICTION_COLOUR, "solid")
        overlap = dice(predicted > 0, self.volume.label > 0)
        axes.text(
            *(0.97, 0.03),
            "empty" if overlap is None else f"Dice {overlap:.3f}",
            transform=axes.transAxes,
            color="white",
            size=8,
            ha="right",
            va="bottom",
            bbox={"facecolor": "black", "alpha": 0.55, "edgecolor": "none", "pad": 1.5},
        )


def _run_of(arm: Arm, volume: Volume) -> Run | None:
    scored = {(r.seed, str(r.fold)) for r in arm.results.results if r.volume == volume.name}
    return next((run for run in _runs_with_predictions(arm) if (run.seed, str(run.fold)) in scored), None)


def _with_predictions(arm: Arm) -> set[str]:
    """The patients of whom there is more than scores of an earlier report."""
    places = {(run.seed, str(run.fold)) for run in _runs_with_predictions(arm)}
    return {r.patient for r in arm.results.results if (r.seed, str(r.fold)) in places}


def _runs_with_predictions(arm: Arm) -> list[Run]:
    runs = (run for run in arm.runs if (run.folder / PREDICTIONS_FOLDER).is_dir())
    return sorted(runs, key=lambda run: (run.seed, str(run.fold)))


def _outline(axes: "Axes", label: np.ndarray, cohort: Cohort, colour: str, style: str) -> None:
    _, dy, dx = cohort.spacing_zyx
    x, y = (np.arange(label.shape[1]) + 0.5) * dx, (np.arange(label.shape[0]) + 0.5) * dy
    for value in cohort.labels.values():
        mask = np.pad((label == value).astype(float), 1)
        if mask.any():
            wide = np.concatenate([[x[0] - dx], x, [x[-1] + dx]])
            tall = np.concatenate([[y[0] - dy], y, [y[-1] + dy]])
            axes.contour(wide, tall, mask, [0.5], colors=colour, linewidths=1.4, linestyles=style)


def _window(normalisation: Any) -> tuple[float, float, str | None]:
    kind = normalisation.get("kind")
    if kind == "clip_and_scale":
        return normalisation["low"], normalisation["high"], "HU"
    if kind == "scale_suv":
        return 0.0, SHOWN_SUV, "SUV"
    return 0.0, 0.0, None


def _shown(image: np.ndarray, normalisation: Mapping[str, Any]) -> tuple[np.ndarray, str]:
    """Grey levels 0..1 and the colour map, of normalised values."""
    kind = normalisation.get("kind")
    if kind == "clip_and_scale":
        return np.clip(image, 0, 1), "gray"
    if kind == "scale_suv":
        return np.clip(image * normalisation["divisor"] / SHOWN_SUV, 0, 1), "gray_r"
    low, high = np.percentile(image, (1, 99.5))
    return np.clip((image - low) / max(high - low, 1e-6), 0, 1), "gray"


def _scale_bar(axes: "Axes", width: float, height: float) -> None:
    from matplotlib import patheffects

    length = next((mm for mm in (50, 20, 10) if mm < 0.5 * width), 5)
    left, y = 0.05 * width, 0.95 * height
    rim = [patheffects.withStroke(linewidth=2.4, foreground="black", alpha=0.7)]
    axes.plot([left, left + length], [y, y], color="white", lw=2.2, solid_capstyle="butt", path_effects=rim)
    middle, above = left + length / 2, y - 0.02 * height
    axes.text(middle, above, f"{length} mm", color="white", size=8, ha="center", va="bottom", path_effects=rim)
