"""A contact sheet: every case of a dataset in one axial plane, with the outlines of its labels.

For people who would rather look than read: a label on the wrong side, a lost header or a swapped channel is seen at
once. The plane is the one in which the label is largest, cut in physical space as radiologists see it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from .picture import AIR, BACKGROUND, DPI, FAINT, TEXT, WINDOWS, check_installed
from .planes import PLANES, View, cut, view_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAGE_PX, ROWS, PANEL_PX, GAP_PX, TITLE_PX, FOOT_PX = 1600, 6, 190, 10, 24, 46
CHANNELS_SHOWN = 3
SAMPLES_ACROSS = 200  # points of a panel's longer side
LETTER_PX = 8.0  # of a title, about
# Okabe and Ito's colours, told apart by colour-blind readers, in turn for the labels 1, 2, ...
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2")
AXIAL = PLANES[0]


@dataclass(frozen=True, kw_only=True)
class MontageCase:
    """A case to show: its images by channel, and its label where there is one."""

    name: str
    images: Mapping[str, sitk.Image]
    label: sitk.Image | None


def write_montage(
    path: Path,
    cases: Iterable[MontageCase],
    *,
    title: str,
    modalities: Mapping[str, str],
    labels: Mapping[str, int],
    total: int,
) -> list[Path]:
    """Writes as many pages as the cases need: ``path``, then ``<name>-2.png`` and so on.

    Args:
        path: the PNG.
        cases: read one after the other, so that a large dataset needs no more memory than a case and a page.
        title: of every page.
        modalities: ``CT``, ``PET`` or ``MR`` of each channel; the first `CHANNELS_SHOWN` are shown.
        labels: name -> value, for the legend.
        total: how many cases there are.

    Returns:
        The pages.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    check_installed()
    panels = min(CHANNELS_SHOWN, len(modalities))
    columns = max(1, PAGE_PX // (panels * PANEL_PX + GAP_PX))
    per_page = columns * ROWS
    pages: list[Path] = []
    remaining = iter(cases)
    for before in range(0, total, per_page):
        here = min(per_page, total - before)
        page = _Page(columns=min(columns, here), rows=-(-here // columns), panels=panels)
        for place, case in enumerate(islice(remaining, here)):
            page.draw(place, case, modalities)
        page.finish(f"{title}, cases {before + 1} to {before + here} of {total}", labels, list(modalities)[:panels])
        file = path.with_name(f"{path.stem}-{len(pages) + 1}{path.suffix}") if before else path
        page.figure.savefig(file, format="png", dpi=DPI, facecolor=BACKGROUND)
        pages.append(file)
    return pages


class _Page:
    """A figure of ``rows`` x ``columns`` tiles; a tile is a title and the channels side by side."""

    def __init__(self, *, columns: int, rows: int, panels: int) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.columns = columns
        self.tile = (panels * PANEL_PX + GAP_PX, TITLE_PX + PANEL_PX + GAP_PX)
        self.width = max(columns * self.tile[0] + GAP_PX, 900)
        self.height = FOOT_PX + rows * self.tile[1] + FOOT_PX
        size = (self.width / DPI, self.height / DPI)
        self.figure = Figure(figsize=size, dpi=DPI, facecolor=BACKGROUND)
        FigureCanvasAgg(self.figure)

    def draw(self, place: int, case: MontageCase, modalities: Mapping[str, str]) -> None:
        """One case, in reading order."""
        row, column = divmod(place, self.columns)
        left, top = GAP_PX + column * self.tile[0], FOOT_PX + row * self.tile[1]
        view, empty = _view(case)
        note = " (no label)" if case.label is None else " (empty)" if empty else ""
        most = int((self.tile[0] - GAP_PX) / LETTER_PX) - len(note)
        name = case.name if len(case.name) <= most else "..." + case.name[3 - most :]
        self._text(left, top + TITLE_PX / 2, name + note, size=10, ha="left")
        shown = [(channel, image) for channel, image in case.images.items()][:CHANNELS_SHOWN]
        for number, (channel, image) in enumerate(shown):
            box = (left + number * PANEL_PX, top + TITLE_PX, PANEL_PX - 2, PANEL_PX)
            _draw_panel(self._axes(*box), image, modalities[channel], case.label, view)

    def finish(self, title: str, labels: Mapping[str, int], channels: Sequence[str]) -> None:
        """The heading and the legend."""
        from matplotlib.lines import Line2D

        self._text(GAP_PX, FOOT_PX / 2, title, size=13, ha="left", weight="bold")
        said = f"Left to right: {', '.join(channels)}. " if len(channels) > 1 else ""
        self._text(
            GAP_PX, self.height - FOOT_PX / 2, f"{said}Axial, the patient's right on the left.", size=9, ha="left"
        )
        lines = [
            Line2D([], [], color=_colour(value), lw=2, label=name)
            for name, value in sorted(labels.items(), key=lambda item: item[1])
            if value > 0
        ]
        if lines:
            self.figure.legend(
                handles=lines, loc="upper right", ncols=min(len(lines), 5), frameon=False, labelcolor=TEXT, fontsize=9
            )

    def _axes(self, left: float, top: float, width: float, height: float) -> "Axes":
        box = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(box, frameon=False)
        axes.set_xticks([])
        axes.set_yticks([])
        return axes

    def _text(self, left: float, top: float, text: str, **style: Any) -> None:
        colour = TEXT if style.get("size", 0) > 9 else FAINT
        self.figure.text(left / self.width, 1 - top / self.height, text, color=colour, va="center", **style)


def _view(case: MontageCase) -> tuple[View, bool]:
    """The box around the label and the axial plane in which it is largest; the image's middle where there is none."""
    first = next(iter(case.images.values()))
    mask = case.label if case.label is not None else sitk.Image(first.GetSize(), sitk.sitkUInt8)
    if case.label is None:
        mask.CopyInformation(first)
    view = view_of(mask)
    found = sitk.GetArrayFromImage(mask) > 0
    if not found.any():
        return view, True
    # The index axis nearest to the patient's long axis, as an axis of the array.
    along = int(np.argmax(np.abs(np.reshape(mask.GetDirection(), (3, 3))[2])))
    axis = 2 - along
    areas = found.sum(axis=tuple(other for other in range(3) if other != axis))
    best = int(np.argmax(areas))
    place = np.argwhere(np.take(found, [best], axis=axis)).mean(axis=0)[::-1]
    place[along] = best
    centre = np.array(mask.TransformContinuousIndexToPhysicalPoint(place.tolist()))
    return View(low=view.low, high=view.high, centre=centre), False


def _draw_panel(axes: "Axes", image: sitk.Image, modality: str, label: sitk.Image | None, view: View) -> None:
    width, height = view.extent(AXIAL)
    pixel = max(width, height) / SAMPLES_ACROSS
    background = AIR.get(modality, 0.0)
    plane = cut(image, AXIAL, view, pixel_mm=pixel, background=background)
    if modality in WINDOWS:
        grey, low, high, _ = WINDOWS[modality]
    else:
        grey, (low, high) = "gray", (float(value) for value in np.percentile(plane, (1, 99.5)))
    side = max(width, height)
    extent = (-width / 2, width / 2, -height / 2, height / 2)
    axes.imshow(plane, cmap=grey, vmin=low, vmax=max(high, low + 1e-6), extent=extent, aspect="equal")
    if label is not None:
        for value in np.unique(sitk.GetArrayFromImage(label)).tolist():
            if value <= 0:
                continue
            part = sitk.Cast(label == value, sitk.sitkFloat32)
            inside = cut(part, AXIAL, view, pixel_mm=pixel)
            if inside.max() > 0.5 > inside.min():
                axes.contour(inside, [0.5], colors=_colour(int(value)), linewidths=1.2, extent=extent, origin="upper")
    axes.set_xlim(-side / 2, side / 2)
    axes.set_ylim(-side / 2, side / 2)
    axes.set_facecolor(BACKGROUND)


def _colour(value: int) -> str:
    return COLOURS[(value - 1) % len(COLOURS)]
