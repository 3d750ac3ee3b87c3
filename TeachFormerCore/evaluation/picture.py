"""One picture of a result: axial, coronal and sagittal planes of the images, the mask and the maps.

Rows are planes through the mask's centre of mass, columns are what is shown. Every plane is cut in physical space along
the patient's axes, so flipped, permuted and oblique images give the same picture, at one scale, oriented as
radiologists read: the patient's right on the left of axial and coronal planes, the front on the left of sagittal ones.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from ..errors import missing_dependency
from .planes import PLANES, Plane, View, cut, view_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 100
WIDTH_PX, PANELS_HEIGHT_PX = 1500, 1010
LEFT_PX, GAP_PX, TOP_PX, TITLES_PX, BOTTOM_PX = 46, 8, 74, 28, 92
LEGEND_PX, LEAST_WIDTH_PX = 320, 900
BAR_PX = 320
COLUMN_PX = 190  # a column's least width: room for a colour bar and a title
SCALE_BAR_MM = 50
# Okabe and Ito's colours, told apart by colour-blind readers; the reference is dashed as well.
PREDICTION_COLOUR, REFERENCE_COLOUR = "#E69F00", "#56B4E9"
BACKGROUND, TEXT, FAINT = "#101214", "#F2F2F2", "#B4B8BC"

# Windows by modality: colour map, lowest, highest value and title; MR has no unit, its window comes from the image.
WINDOWS: dict[str, tuple[str, float, float, str]] = {
    "CT": ("gray", -160.0, 240.0, "HU"),
    "PET": ("gray_r", 0.0, 10.0, "SUV"),
}
AIR = {"CT": -1024.0}


def check_installed() -> None:
    """Asks for matplotlib before any work is done.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise missing_dependency("matplotlib", extra="report", purpose="draw pictures of the results") from error


def render_case(path: Path, **what: Any) -> None:
    """Writes `case_figure` as a PNG of about 1500 x 1200 pixels; ``what`` are its arguments.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    case_figure(**what).savefig(path, format="png", dpi=DPI, facecolor=BACKGROUND)


def case_figure(
    *,
    images: dict[str, sitk.Image],
    modalities: dict[str, str],
    label: sitk.Image,
    case: str,
    model: str,
    reference: sitk.Image | None = None,
    attention_fine: sitk.Image | None = None,
    attention_coarse: sitk.Image | None = None,
    uncertainty: sitk.Image | None = None,
    dice: float | None = None,
    seen: bool = False,
    credit: str | None = None,
) -> "Figure":
    """The picture of one case, for a screen or a page.

    Args:
        images: by channel; the first one and the PET (else the second one) are shown.
        modalities: ``CT``, ``PET`` or ``MR`` of each channel.
        label: the predicted mask; every value above 0 is outlined.
        case, model: for the title.
        reference: the expert's mask, if there is one.
        attention_fine, attention_coarse, uncertainty: 0..1, each shown where given.
        dice: against the reference.
        seen: whether the model was trained on this patient; then the title says so.
        credit: the images' attribution, at the foot.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    check_installed()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    empty = not sitk.GetArrayViewFromImage(label).any()
    view = view_of(reference if empty and reference is not None else label)
    first, *others = images
    shown = [first, *[name for name in others if modalities[name] == "PET"][:1]]
    if len(shown) == 1:
        shown += others[:1]
    columns: list[_Grey | _Overlay] = [_Grey(images[name], name, modalities[name], view) for name in shown]
    maps = (
        (attention_fine, "Attention, fine (0-1)", "inferno"),
        (attention_coarse, "Attention, coarse (0-1)", "inferno"),
        (uncertainty, "Uncertainty (0-1)", "viridis"),
    )
    under = _Grey(images[first], first, modalities[first], view)
    predicted, expected = _parts(label), _parts(reference) if reference is not None else []
    columns += [_Overlay(image, title, colours, under, view) for image, title, colours in maps if image is not None]

    layout = _Layout(view, len(columns))
    figure = Figure(figsize=(layout.width / DPI, layout.height / DPI), dpi=DPI, facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    text: dict[str, Any] = {"color": TEXT, "size": 12, "ha": "center", "va": "center"}
    for row, plane in enumerate(PLANES):
        for column, panel in enumerate(columns):
            box = layout.panel(row, column)
            axes = figure.add_axes(layout.fraction(*box), frameon=False, label=f"{plane.name}: {panel.title}")
            axes.set_xticks([])
            axes.set_yticks([])
            drawn = panel.draw(axes, plane)
            if isinstance(panel, _Overlay):
                _outline(axes, predicted, plane, view, colors="white", linewidths=0.9)
            else:
                _outline(axes, predicted, plane, view, colors=PREDICTION_COLOUR, linewidths=1.8)
                # On top and dashed: where both run together both are seen.
                _outline(axes, expected, plane, view, colors=REFERENCE_COLOUR, linewidths=1.6, linestyles="dashed")
            _letters(axes, plane, panel.ink)
            if column == 0:
                _scale_bar(axes, box[2], box[3], layout.scale)
                figure.text(*layout.point(LEFT_PX / 2, box[1] + box[3] / 2), plane.name, rotation=90, **text)
            if row == 0:
                middle = box[0] + box[2] / 2
                figure.text(*layout.point(middle, TOP_PX + TITLES_PX / 2), panel.title, **text)
                bar_width = min(0.8 * layout.column, BAR_PX)
                bar = (middle - bar_width / 2, layout.height - 70, bar_width, 12)
                panel.draw_bar(figure.add_axes(layout.fraction(*bar)), drawn)
    _heading(figure, case, model, label, reference, dice, seen, credit)
    return figure


class _Layout:
    """Where the panels lie, in pixels from the top left; all have one scale, pixels per mm."""

    def __init__(self, view: View, columns: int) -> None:
        extents = [view.extent(plane) for plane in PLANES]
        widest, tallest = max(width for width, _ in extents), sum(height for _, height in extents)
        self.scale = min(
            (WIDTH_PX - LEFT_PX - GAP_PX * (columns + 1)) / (columns * widest),
            (PANELS_HEIGHT_PX - GAP_PX * (len(PLANES) - 1)) / tallest,
        )
        least = max(COLUMN_PX, (LEAST_WIDTH_PX - LEFT_PX - GAP_PX) / columns - GAP_PX)
        self.column = max(self.scale * widest, least)
        self.sizes = [(self.scale * width, self.scale * height) for width, height in extents]
        self.width = LEFT_PX + columns * (self.column + GAP_PX) + GAP_PX
        self.height = TOP_PX + TITLES_PX + self.scale * tallest + GAP_PX * len(PLANES) + BOTTOM_PX

    def panel(self, row: int, column: int) -> tuple[float, float, float, float]:
        """Left, top, width and height of a panel, centred in its column."""
        width, height = self.sizes[row]
        left = LEFT_PX + column * (self.column + GAP_PX) + (self.column - width) / 2
        return left, TOP_PX + TITLES_PX + sum(tall + GAP_PX for _, tall in self.sizes[:row]), width, height

    def fraction(self, left: float, top: float, width: float, height: float) -> tuple[float, float, float, float]:
        """A box as matplotlib wants it: parts of the figure, from below."""
        return left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height

    def point(self, x: float, y: float) -> tuple[float, float]:
        """A point as matplotlib wants it."""
        return x / self.width, 1 - y / self.height


class _Grey:
    """An image in its window."""

    def __init__(self, image: sitk.Image, name: str, modality: str, view: View) -> None:
        self.image, self.view, self.background = image, view, AIR.get(modality, 0.0)
        if modality in WINDOWS:
            self.colours, self.low, self.high, unit = WINDOWS[modality]
            self.title = f"{name} ({unit})"
        else:
            values = sitk.GetArrayViewFromImage(image)
            self.low, self.high = (float(value) for value in np.percentile(values, (1, 99.5)))
            self.colours, self.title = "gray", f"{name} (a.u.)"
        self.ink = "black" if self.colours.endswith("_r") else "white"

    def draw(self, axes: "Axes", plane: Plane) -> Any:
        return axes.imshow(
            cut(self.image, plane, self.view, background=self.background),
            cmap=self.colours,
            vmin=self.low,
            vmax=max(self.high, self.low + 1e-6),
            extent=(0, 1, 0, 1),
            aspect="auto",
        )

    def draw_bar(self, axes: "Axes", drawn: Any) -> None:
        """The legend of the grey levels."""
        bar = axes.figure.colorbar(drawn, cax=axes, orientation="horizontal")
        bar.set_ticks([self.low, (self.low + self.high) / 2, self.high])
        bar.ax.set_xticklabels([f"{v:g}" if v == round(v) else f"{v:.3g}" for v in bar.get_ticks()])
        _style_bar(bar)


class _Overlay:
    """A map of 0..1 in colour over an image; low values are transparent."""

    ink = "white"

    def __init__(self, image: sitk.Image, title: str, colours: str, under: _Grey, view: View) -> None:
        from matplotlib import colormaps
        from matplotlib.colors import ListedColormap

        rgba = colormaps[colours](np.linspace(0, 1, 256))
        rgba[:, 3] = 0.68 * np.clip((np.linspace(0, 1, 256) - 0.2) / 0.4, 0, 1)
        self.image, self.title, self.under, self.view, self.colours = image, title, under, view, ListedColormap(rgba)

    def draw(self, axes: "Axes", plane: Plane) -> Any:
        self.under.draw(axes, plane)
        values = cut(self.image, plane, self.view)
        return axes.imshow(values, cmap=self.colours, vmin=0, vmax=1, extent=(0, 1, 0, 1), aspect="auto")

    def draw_bar(self, axes: "Axes", drawn: Any) -> None:
        """The legend of the colours, over the grey of soft tissue as in the picture."""
        axes.set_facecolor("#8A8A8A")
        bar = axes.figure.colorbar(drawn, cax=axes, orientation="horizontal")
        bar.set_ticks([0, 0.5, 1])
        bar.ax.set_xticklabels(["0", "0.5", "1"])
        _style_bar(bar)


def _style_bar(bar: Any) -> None:
    bar.outline.set_edgecolor(FAINT)
    bar.ax.tick_params(colors=TEXT, labelsize=10, length=3)


def _halo(colour: str = "black") -> list[Any]:
    """A rim, so that a line or letter is read on light and dark."""
    from matplotlib import patheffects

    return [patheffects.withStroke(linewidth=2.6, foreground=colour, alpha=0.65)]


def _parts(mask: sitk.Image) -> list[sitk.Image]:
    """One mask of 0 and 1, as float32, per label value."""
    array = sitk.GetArrayViewFromImage(mask)
    return [sitk.Cast(mask == value, sitk.sitkFloat32) for value in np.unique(array[array > 0]).tolist()]


def _outline(axes: "Axes", parts: list[sitk.Image], plane: Plane, view: View, **style: Any) -> None:
    for part in parts:
        inside = cut(part, plane, view)
        if inside.max() > 0.5 > inside.min():
            lines = axes.contour(inside, [0.5], extent=(0, 1, 0, 1), origin="upper", **style)
            if "linestyles" not in style:
                lines.set_path_effects(_halo())
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)


def _letters(axes: "Axes", plane: Plane, ink: str) -> None:
    places = ((0.02, 0.5, "left", "center"), (0.98, 0.5, "right", "center"), (0.5, 0.98, "center", "top"))
    halo = _halo("white" if ink == "black" else "black")
    for letter, (x, y, ha, va) in zip(plane.letters, (*places, (0.5, 0.02, "center", "bottom")), strict=True):
        axes.text(x, y, letter, color=ink, size=10, weight="bold", ha=ha, va=va, path_effects=halo)


def _scale_bar(axes: "Axes", width: float, height: float, scale: float) -> None:
    """At the lower right, above the orientation letter; the panel's size in pixels, ``scale`` in pixels per mm."""
    length = next((mm for mm in (SCALE_BAR_MM, 20, 10) if mm * scale < 0.8 * width), 5)
    right, left, y = 1 - 8 / width, 1 - (8 + length * scale) / width, 28 / height
    axes.plot([left, right], [y, y], color="white", lw=2.5, solid_capstyle="butt", path_effects=_halo())
    text = f"{length} mm"
    middle, above = (left + right) / 2, y + 5 / height
    axes.text(middle, above, text, color="white", size=9, ha="center", va="bottom", path_effects=_halo())


def _volume_ml(mask: sitk.Image) -> float:
    return np.count_nonzero(sitk.GetArrayViewFromImage(mask)) * float(np.prod(mask.GetSpacing())) / 1000


def _fit(text: str, width_px: float, size: float) -> str:
    """The text, cut where it would be too long; a letter is on average at most 0.6 of its size wide."""
    most = int(width_px / (0.6 * size * DPI / 72))
    return text if len(text) <= most else text[: most - 3] + "..."


def _heading(
    figure: "Figure",
    case: str,
    model: str,
    label: sitk.Image,
    reference: sitk.Image | None,
    dice: float | None,
    seen: bool,
    credit: str | None,
) -> None:
    from matplotlib.lines import Line2D

    width, height = figure.get_size_inches() * DPI
    facts = [f"Volume {_volume_ml(label):.1f} mL"]
    if reference is not None:
        facts[0] += f" (reference {_volume_ml(reference):.1f} mL)"
    if dice is not None:
        facts.append(f"Dice {dice:.3f}" + (" (training case)" if seen else ""))
    elif seen:
        facts.append("training case")
    facts.append(f"model {model}")
    left = 16 / width
    title, line = _fit(case, width - 32 - LEGEND_PX, 19), _fit(", ".join(facts), width - 32, 12)
    figure.text(left, 1 - 14 / height, title, color=TEXT, size=17, weight="bold", va="top")
    figure.text(left, 1 - 46 / height, line, color=TEXT, size=12, va="top")
    names = [(PREDICTION_COLOUR, "solid", "Prediction")]
    if reference is not None:
        names.append((REFERENCE_COLOUR, "dashed", "Reference"))
    figure.legend(
        handles=[Line2D([], [], color=colour, lw=2.2, ls=style, label=name) for colour, style, name in names],
        loc="upper right",
        bbox_to_anchor=(1 - 8 / width, 1 - 6 / height),
        ncols=2,
        frameon=False,
        labelcolor=TEXT,
        fontsize=12,
    )
    foot = "Planes through the centre of mass of the prediction"
    if not sitk.GetArrayViewFromImage(label).any():
        foot = "Nothing was found; planes through the centre of the " + ("reference" if reference else "image")
    figure.text(left, 10 / height, foot, color=FAINT, size=10, va="bottom")
    if credit:
        figure.text(1 - left, 10 / height, credit, color=FAINT, size=10, va="bottom", ha="right")
