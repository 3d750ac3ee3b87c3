"""The report's charts, in Okabe and Ito's colours, which colour-blind readers tell apart; drawn without a screen."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .arms import Arm
from .comparisons import MARGIN, METRIC, QUESTIONS, Comparison
from .study import Run, read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 160
COLOURS = {
    "teacher": "#0072B2",
    "student": "#E69F00",
    "distilled": "#009E73",
    "baseline": "#CC79A7",
    "ensemble": "#56B4E9",
    "prior": "#6B6B6B",
}
KINDS = {
    "teacher": "teacher",
    "student": "student alone",
    "distilled": "distilled student",
    "baseline": "baseline",
    "ensemble": "ensemble",
    "prior": "no training",
}
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK, FAINT, GRID = "#1B1F23", "#57606A", "#D9DEE3"
LARGEST_BUBBLE = 1500.0  # points squared
LEAST_P = 1e-5  # smaller ones are drawn here: they come from the number of patterns drawn, and say no more
CURVE_COLUMNS = 4


def new_figure(width: float, height: float) -> "Figure":
    """An empty white figure, inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def png(figure: "Figure") -> bytes:
    """The figure as a PNG file, the same bytes for the same figure."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def bubble_chart(arms: Sequence[Arm]) -> "Figure | None":
    """Dice over parameters, a bubble's area for the FLOPs; None where no arm has a network."""
    sized = [arm for arm in arms if arm.facts and arm.results.mean(METRIC) is not None]
    if not sized:
        return None
    figure = new_figure(11.2, max(5.2, 1.8 + 0.27 * len(arms)))
    height = figure.get_size_inches()[1]
    axes = figure.add_axes((0.065, 0.6 / height, 0.475, 1 - 1.0 / height))
    scale = LARGEST_BUBBLE / max(arm.facts.flops for arm in sized if arm.facts)
    labels, most = [], max(len(arm.results.patients) for arm in arms)
    for arm in sorted(sized, key=lambda arm: -(arm.facts.flops if arm.facts else 0)):
        assert arm.facts
        x, y = arm.facts.parameters / 1e6, float(arm.results.mean(METRIC) or 0)
        colour = COLOURS[arm.kind]
        axes.scatter(x, y, s=scale * arm.facts.flops, color=colour, alpha=0.45, edgecolor=colour, linewidth=1.2)
        axes.plot(x, y, ".", color=INK, markersize=3)
        labels.append((y, x, f"{arm.title}  {y:.3f}{_fewer(arm, most)}", colour))
    parameters = [arm.facts.parameters / 1e6 for arm in sized if arm.facts]
    axes.set_xscale("log")
    axes.set_xlim(min(parameters) / 2, max(parameters) * 2)
    for arm in arms:
        value = arm.results.mean(METRIC)
        if arm.facts is None and value:
            axes.axhline(value, color=COLOURS[arm.kind], linewidth=1.1, linestyle=(0, (4, 3)), zorder=0)
            labels.append((value, float("nan"), f"{arm.title}  {value:.3f}{_fewer(arm, most)}", COLOURS[arm.kind]))
    values = [y for y, *_ in labels]
    room = max(0.03, 0.12 * (max(values) - min(values)))
    axes.set_ylim(max(0, min(values) - room), min(1, max(values) + room))
    _label_beside(axes, labels)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter("")
    axes.set_xlabel("Parameters (millions, logarithmic)")
    axes.set_ylabel("Dice, mean over patients")
    _style(axes)
    _bubble_legends(figure, [arm for arm in arms if arm.facts or arm.results.mean(METRIC)], scale)
    return figure


def difference_chart(comparisons: Sequence[Comparison]) -> "Figure | None":
    """Differences with intervals, and beside them the p-values before and after Holm; None without comparisons."""
    if not comparisons:
        return None
    from matplotlib.lines import Line2D

    names = [f"{one.first.title}\nvs {one.second.title}" for one in comparisons]
    headings = list(dict.fromkeys(one.question for one in comparisons))
    height = 1.3 + 0.4 * (len(names) + len(headings))
    figure = new_figure(10.5, height)
    top, bottom = 1 - 0.55 / height, 0.75 / height
    left = figure.add_axes((0.31, bottom, 0.32, top - bottom))
    right = figure.add_axes((0.67, bottom, 0.30, top - bottom), sharey=left)
    position, ticks = 0.0, []
    for question in headings:
        left.text(
            *(-0.93, position),
            QUESTIONS[question],
            transform=left.get_yaxis_transform(),
            weight="bold",
            size=9,
            va="center",
            color=INK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )
        position += 1
        count = sum(one.question == question for one in comparisons)
        if question == "teacher":
            left.plot([-100 * MARGIN] * 2, [position - 0.5, position + count - 0.5], color="#D55E00", linewidth=1.6)
        for one in (one for one in comparisons if one.question == question):
            result, colour = one.result, COLOURS[one.first.kind]
            if result.interval:
                left.plot([100 * end for end in result.interval], [position] * 2, color=colour, linewidth=2.2)
            left.plot(100 * result.mean, position, "o", color=colour, markersize=7, markeredgecolor=INK)
            before, after = (max(LEAST_P, p) for p in (result.p_permutation, one.p_holm))
            right.plot([before, after], [position] * 2, color=GRID, linewidth=1.4, zorder=1)
            right.plot(before, position, "o", color="white", markeredgecolor=colour, markersize=7)
            right.plot(
                after, position, "o" if one.can_be_shown else "X", color=colour, markeredgecolor=INK, markersize=7
            )
            if result.p_wilcoxon is not None:
                right.plot(max(LEAST_P, result.p_wilcoxon), position, "|", color=INK, markersize=10)
            ticks.append(position)
            position += 1
    left.set_yticks(ticks, names, size=8)
    left.set_ylim(position - 0.4, -0.6)
    left.axvline(0, color=FAINT, linewidth=1)
    left.set_xlabel(f"Difference (Dice points)\nBCa interval of {_confidences(comparisons)}")
    right.set_xscale("log")
    right.set_xlim(LEAST_P / 1.5, 1.5)
    right.axvline(0.05, color="#D55E00", linewidth=1.2, linestyle="--")
    right.set_xlabel(f"p (logarithmic, from {LEAST_P:g}), dashed: 0.05")
    right.tick_params(labelleft=False, left=False)
    for axes in (left, right):
        _style(axes)
        axes.grid(axis="y", visible=False)
    marks = [
        Line2D([], [], marker="o", ls="", color="white", markeredgecolor=INK, label="permutation"),
        Line2D([], [], marker="o", ls="", color=FAINT, markeredgecolor=INK, label="after Holm"),
        Line2D([], [], marker="|", ls="", color=INK, markersize=10, label="Wilcoxon"),
    ]
    if not all(one.can_be_shown for one in comparisons):
        label = "after Holm, cannot reach 0.05"
        marks.append(Line2D([], [], marker="X", ls="", color=FAINT, markeredgecolor=INK, label=label))
    if any(one.question == "teacher" for one in comparisons):
        marks.append(Line2D([], [], color="#D55E00", label=f"margin, -{100 * MARGIN:g} points"))
    figure.legend(handles=marks, loc="upper right", ncols=len(marks), frameon=False, fontsize=8)
    return figure


def _confidences(comparisons: Sequence[Comparison]) -> str:
    """Of the intervals; of non-inferiority another one than of the other questions."""
    of = {100 * one.result.confidence: one.question == "teacher" for one in comparisons}
    return ", ".join(
        f"{confidence:g} %" + (" (non-inferiority)" if one_sided and len(of) > 1 else "")
        for confidence, one_sided in sorted(of.items(), reverse=True)
    )


def learning_curves(arms: Sequence[Arm]) -> "Figure | None":
    """Dice of the choosing cases over the steps, a panel for each arm, a line for each run; None without figures."""
    return _small_multiples(arms, "Steps", "Dice of the choosing cases", _choice_lines, limits=(0, 1))


def loss_curves(arms: Sequence[Arm]) -> "Figure | None":
    """Each loss term over the steps, weighted as in the sum, mean over the runs of an arm; None without figures."""
    return _small_multiples(arms, "Steps", "Loss term (logarithmic)", _term_lines, limits=None)


Line = tuple[str, Sequence[float], Sequence[float], str]


def _choice_lines(arm: Arm, names: dict[str, str]) -> list[Line]:
    lines: list[Line] = []
    for run in arm.runs:
        rows = [row for row in read_metrics(run.folder) if "choice_dice" in row]
        if rows:
            colour = COLOURS[arm.kind]
            names.setdefault(KINDS[arm.kind], colour)
            lines.append((run.title, [row["step"] for row in rows], [row["choice_dice"] for row in rows], colour))
    return lines


def _term_lines(arm: Arm, names: dict[str, str]) -> list[Line]:
    lines: list[Line] = []
    for term, (steps, values) in _mean_terms(arm.runs).items():
        label = term.removeprefix("train_").replace("_", " ")
        colour = names.setdefault(label, LINES[len(names) % len(LINES)])
        lines.append((label, steps, values, colour))
    return lines


def _mean_terms(runs: Sequence[Run]) -> Mapping[str, tuple[list[float], list[float]]]:
    """The mean of each term over the runs, epoch by epoch, as far as the shortest run went."""
    tables = [rows for run in runs if (rows := read_metrics(run.folder))]
    if not tables:
        return {}
    length = min(map(len, tables))
    terms = [name for name in tables[0][0] if name.startswith("train_")]
    return {
        term: (
            [tables[0][i]["step"] for i in range(length)],
            [float(np.mean([rows[i].get(term, np.nan) for rows in tables])) for i in range(length)],
        )
        for term in terms
    }


def _small_multiples(
    arms: Sequence[Arm], x_title: str, y_title: str, lines_of: Any, *, limits: tuple[float, float] | None
) -> "Figure | None":
    from matplotlib.lines import Line2D

    names: dict[str, str] = {}
    drawn = [(arm, lines) for arm in arms if arm.runs and (lines := lines_of(arm, names))]
    if not drawn:
        return None
    columns = min(CURVE_COLUMNS, len(drawn))
    rows = -(-len(drawn) // columns)
    height = 0.95 + 1.9 * rows
    figure = new_figure(2.65 * columns + 0.6, height)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    figure.subplots_adjust(
        left=0.8 / (2.65 * columns + 0.6),
        right=0.985,
        bottom=0.55 / height,
        top=1 - 0.62 / height,
        wspace=0.08,
        hspace=0.32,
    )
    for axes, (arm, lines) in zip(panels.flat, drawn, strict=False):
        for _, steps, values, colour in lines:
            marker = "." if len(steps) < 30 else None
            axes.plot(steps, values, color=colour, linewidth=1.3, alpha=0.9, marker=marker, markersize=4)
        axes.set_title(arm.title, size=8.5, color=INK)
        axes.set_xlim(left=0)
        if limits:
            axes.set_ylim(*limits)
        else:
            axes.set_yscale("log")
            axes.yaxis.set_minor_formatter("")
        _style(axes)
        axes.tick_params(labelsize=7)
    for axes in panels.flat[len(drawn) :]:
        axes.set_visible(False)
    figure.supxlabel(x_title, size=9, color=INK)
    figure.supylabel(y_title, size=9, color=INK)
    handles = [Line2D([], [], color=colour, linewidth=2, label=name) for name, colour in names.items()]
    figure.legend(handles=handles, loc="upper center", ncols=min(6, len(handles)), frameon=False, fontsize=8)
    return figure


def _label_beside(axes: "Axes", labels: list[tuple[float, float, str, str]]) -> None:
    """Names in a column at the right, in the order of the values, each with a line to its bubble or its level."""
    low, high = axes.get_ylim()
    step = min(0.055, 0.98 / len(labels))
    # From above down, as near to its value as the one above allows; then pushed up where the bottom is reached.
    places, above = [], 1.0 + step
    ordered = sorted(labels, key=lambda one: -one[0])
    for y, *_ in ordered:
        above = min(above - step, (y - low) / (high - low))
        places.append(above)
    below = 0.0 - step
    for index in reversed(range(len(places))):
        below = places[index] = max(places[index], below + step)
    leader = {"arrowstyle": "-", "linewidth": 0.8, "alpha": 0.75, "relpos": (0, 0.5), "shrinkA": 1}
    for place, (y, x, text, colour) in zip(places, ordered, strict=True):
        bubble = x == x
        axes.annotate(
            text,
            xy=(x if bubble else 1.0, y),
            xycoords="data" if bubble else axes.get_yaxis_transform(),
            xytext=(1.06, place),
            textcoords="axes fraction",
            va="center",
            size=8.5,
            color=INK,
            annotation_clip=False,
            arrowprops=leader | {"color": colour},
        )


def _fewer(arm: Arm, most: int) -> str:
    """Says on how many patients, where it is not all."""
    count = len(arm.results.patients)
    return "" if count == most else f"  (n = {count})"


def _bubble_legends(figure: "Figure", arms: Sequence[Arm], scale: float) -> None:
    from matplotlib.lines import Line2D

    kinds = {kind: any(arm.facts for arm in arms if arm.kind == kind) for kind in KINDS}
    kinds = {kind: sized for kind, sized in kinds.items() if any(arm.kind == kind for arm in arms)}
    dots = [
        Line2D([], [], marker="o", ls="", color=COLOURS[kind], alpha=0.7, label=KINDS[kind])
        if sized
        else Line2D([], [], color=COLOURS[kind], linestyle=(0, (4, 3)), linewidth=1.3, label=KINDS[kind])
        for kind, sized in kinds.items()
    ]
    largest = max(arm.facts.flops for arm in arms if arm.facts)
    sizes = [
        Line2D(
            [],
            [],
            marker="o",
            ls="",
            color="white",
            markeredgecolor=FAINT,
            markersize=(scale * flops) ** 0.5,
            label=f"{flops / 1e9:.3g} G",
        )
        for flops in (_round(largest / 16), _round(largest / 4), _round(largest))
    ]
    first = figure.legend(
        handles=dots, loc="upper left", bbox_to_anchor=(0.06, 0.998), ncols=len(dots), frameon=False, fontsize=8.5
    )
    figure.add_artist(first)
    figure.legend(
        handles=sizes,
        loc="center right",
        bbox_to_anchor=(0.998, 0.5),
        frameon=False,
        fontsize=8.5,
        title="FLOPs of one window",
        title_fontsize=8.5,
        labelspacing=3.4,
        borderpad=2.0,
        handlelength=3.2,
        handletextpad=1.2,
    )


def _round(value: float) -> float:
    """To two digits, so that a legend is read easily."""
    return float(f"{value:.2g}")


def _style(axes: "Axes") -> None:
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=INK, which="both", labelsize=8.5)
    axes.xaxis.label.set(color=INK, size=9.5)
    axes.yaxis.label.set(color=INK, size=9.5)
