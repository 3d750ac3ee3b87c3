"""The picture of a result: planes in physical space, orientation, scale, texts that fit."""

import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from TeachFormerCore.errors import MissingDependencyError
from TeachFormerCore.evaluation.picture import case_figure, render_case
from TeachFormerCore.evaluation.planes import MARGIN_MM, PLANES, View, cut, view_of

AXIAL, CORONAL, SAGITTAL = PLANES
MODALITIES = {"CT": "CT", "PET": "PET", "MR_T1": "MR"}


def rotation(about_z: float, about_x: float) -> np.ndarray:
    (c, s), (d, t) = ((np.cos(a), np.sin(a)) for a in np.deg2rad([about_z, about_x]))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, d, -t], [0, t, d]])


DIRECTIONS = {
    "identity": np.eye(3),
    "flipped": np.diag([-1.0, -1.0, 1.0]),
    "permuted": np.eye(3)[:, [2, 0, 1]] * [1, -1, -1],
    "oblique": rotation(20, 0),
    "double oblique, permuted": rotation(-15, 25)[:, [1, 2, 0]] * [-1, 1, 1],
}


def image_of(values, direction: np.ndarray, centre=(-40.0, 15.0, 300.0), size=(50, 50, 50), spacing=(4.0, 3.0, 3.5)):
    """An image whose voxels are ``values(x, y, z)`` of LPS millimetres."""
    axes = direction * np.array(spacing)
    origin = np.array(centre) - axes @ ((np.array(size) - 1) / 2)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"), axis=-1)
    points = index @ axes.T + origin
    image = sitk.GetImageFromArray(np.ascontiguousarray(values(*np.moveaxis(points, -1, 0)).transpose(2, 1, 0)))
    image.SetSpacing(spacing)
    image.SetOrigin(origin.tolist())
    image.SetDirection(direction.ravel().tolist())
    return image


def ellipsoid(x, y, z, *, centre=(-40.0, 15.0, 300.0), half=(15.0, 20.0, 25.0)) -> np.ndarray:
    away = sum(((v - c) / h) ** 2 for v, c, h in zip((x, y, z), centre, half, strict=True))
    return (away <= 1).astype(np.uint8)


@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS.keys())
@pytest.mark.parametrize("plane", PLANES, ids=lambda plane: plane.name)
def test_a_cut_shows_what_lies_there_in_the_patient(plane, direction: np.ndarray) -> None:
    # Linear interpolation is exact on a linear function: every pixel is known.
    image = image_of(lambda x, y, z: (2 * x - 3 * y + 0.5 * z).astype(np.float32), direction)
    centre = np.array([-37.3, 18.1, 305.7])
    view = View(low=centre - np.array([20, 12, 16]), high=centre + np.array([10, 14, 30]), centre=centre)
    shown = cut(image, plane, view, pixel_mm=2.0)

    x, y, z = (
        np.linspace(low + 1, high - 1, round((high - low) / 2)) for low, high in zip(view.low, view.high, strict=True)
    )
    across, down = {"Axial": (x, y), "Coronal": (x, z[::-1]), "Sagittal": (y, z[::-1])}[plane.name]
    right, below = np.meshgrid(across, down)  # left to right, top to bottom
    points = {
        "Axial": (right, below, centre[2]),
        "Coronal": (right, centre[1], below),
        "Sagittal": (centre[0], right, below),
    }
    px, py, pz = points[plane.name]
    assert shown == pytest.approx(2 * px - 3 * py + 0.5 * pz, abs=0.01)


def test_letters_name_the_sides_as_radiologists_read_them() -> None:
    # A ball at the patient's left, back and head.
    image = image_of(lambda *p: ellipsoid(*p, centre=(-10, 40, 330), half=(8, 8, 8)).astype(np.float32), np.eye(3))
    view = View(low=np.array([-90, -35, 250]), high=np.array([10, 65, 350]), centre=np.array([-10, 40, 330]))
    sides = {}
    for plane in PLANES:
        rows, columns = np.nonzero(cut(image, plane, view) > 0.5)
        left, right, top, bottom = plane.letters
        sides[plane.name] = {right if columns.mean() > 100 else left, bottom if rows.mean() > 100 else top}
    assert sides == {"Axial": {"L", "P"}, "Coronal": {"L", "H"}, "Sagittal": {"P", "H"}}
    assert AXIAL.letters == "RLAP"  # the patient's right on the left, the front on top


@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS.keys())
def test_view_is_the_mask_with_a_margin_and_its_centre_of_mass(direction: np.ndarray) -> None:
    mask = image_of(
        lambda *p: ellipsoid(*p, half=(12.0, 18.0, 24.0)), direction, size=(70, 80, 90), spacing=(2.5, 2.5, 2.5)
    )
    view = view_of(mask)
    assert view.centre == pytest.approx([-40, 15, 300], abs=0.3)
    assert view.high - view.centre == pytest.approx(np.array([12, 18, 24]) + MARGIN_MM, abs=4)
    assert view.centre - view.low == pytest.approx(np.array([12, 18, 24]) + MARGIN_MM, abs=4)


def test_view_of_one_voxel_by_hand() -> None:
    array = np.zeros((40, 30, 20), np.uint8)  # z, y, x
    array[2, 15, 10] = 3
    mask = sitk.GetImageFromArray(array)
    mask.SetSpacing((2, 5, 10))
    mask.SetOrigin((100, 0, -50))
    view = view_of(mask)
    assert view.centre.tolist() == [120, 75, -30]
    # x: the image ends (99..139) before the margin does; y: 72.5-50..77.5+50; z: below, the image ends at -55.
    assert view.low.tolist() == [99, 22.5, -55]
    assert view.high.tolist() == [139, 127.5, 25]
    assert view.extent(AXIAL) == (40, 105)
    assert view.extent(SAGITTAL) == (105, 80)
    empty = view_of(mask * 0)
    assert (empty.low.tolist(), empty.high.tolist()) == ([99, -2.5, -55], [139, 147.5, 345])


def case(direction: np.ndarray = DIRECTIONS["identity"], **changes) -> dict:
    """The arguments of a picture with everything on it."""

    def body(x, y, z):
        return np.where(np.hypot(x + 50, y - 20) < 60, 50 + 0.3 * (z - 300), -1000).astype(np.float32)

    def blob(height: float):
        return lambda *p: (height * ellipsoid(*p)).astype(np.float32)

    return {
        "images": {"CT": image_of(body, direction), "PET": image_of(blob(8.0), direction)},
        "modalities": MODALITIES,
        "label": image_of(ellipsoid, direction),
        "reference": image_of(lambda *p: ellipsoid(*p, half=(17.0, 18.0, 27.0)), direction),
        "attention_fine": image_of(blob(0.9), direction),
        "attention_coarse": image_of(blob(0.6), direction),
        "uncertainty": image_of(blob(0.4), direction),
        "case": "STS_999",
        "model": "sts_ct_pet 1.0",
        "dice": 0.8766,
        "credit": "STS data: CC BY 3.0, modified",
    } | changes


@pytest.fixture(scope="module")
def figure():
    return case_figure(**case())


def texts(figure) -> list[str]:
    found = [text.get_text() for text in (*figure.texts, *(t for axes in figure.axes for t in axes.texts))]
    return found + [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def panels(figure) -> dict:
    return {axes.get_label(): axes for axes in figure.axes if ":" in axes.get_label()}


def test_every_column_and_plane_is_there(figure) -> None:
    columns = ("CT (HU)", "PET (SUV)", "Attention, fine (0-1)", "Attention, coarse (0-1)", "Uncertainty (0-1)")
    assert set(panels(figure)) == {f"{plane.name}: {column}" for plane in PLANES for column in columns}
    assert {*columns, "Axial", "Coronal", "Sagittal"} <= set(texts(figure))
    images = {name: axes.get_images() for name, axes in panels(figure).items()}
    assert images["Axial: CT (HU)"][0].get_clim() == (-160, 240)
    assert images["Axial: PET (SUV)"][0].get_clim() == (0, 10)
    assert images["Axial: PET (SUV)"][0].get_cmap().name == "gray_r"
    overlay = images["Coronal: Attention, fine (0-1)"][1]
    assert overlay.get_clim() == (0, 1)
    assert overlay.get_array().max() == pytest.approx(0.9, abs=1e-3)
    alpha = overlay.get_cmap()(np.linspace(0, 1, 11))[:, 3]
    assert alpha[:2].tolist() == [0, 0]  # low attention leaves the anatomy free
    assert (np.diff(alpha) >= 0).all()
    assert 0.5 < alpha[-1] < 1


def test_heading_says_what_is_known(figure) -> None:
    shown = texts(figure)
    assert "STS_999" in shown
    label, reference = case()["label"], case()["reference"]
    volumes = [sitk.GetArrayFromImage(mask).sum() * 4 * 3 * 3.5 / 1000 for mask in (label, reference)]
    assert f"Volume {volumes[0]:.1f} mL (reference {volumes[1]:.1f} mL), Dice 0.877, model sts_ct_pet 1.0" in shown
    assert "STS data: CC BY 3.0, modified" in shown
    assert not any("training case" in text for text in shown)
    assert {"Prediction", "Reference"} <= set(shown)
    assert any("Dice 0.877 (training case)" in text for text in texts(case_figure(**case(seen=True))))


def test_what_is_not_given_is_not_shown() -> None:
    less = dict.fromkeys(("reference", "attention_fine", "attention_coarse", "uncertainty", "dice", "credit"))
    images = {"MR_T1": case()["images"]["CT"]}
    figure = case_figure(**case(**less, images=images))
    assert set(panels(figure)) == {f"{plane.name}: MR_T1 (a.u.)" for plane in PLANES}
    shown = " ".join(texts(figure))
    assert all(word not in shown for word in ("Reference", "reference", "Dice", "Attention", "None"))


def test_an_empty_prediction_is_said_and_the_reference_shown() -> None:
    figure = case_figure(**case(label=case()["label"] * 0, dice=0.0))
    shown = texts(figure)
    assert any(text.startswith("Nothing was found") for text in shown)
    assert any("Volume 0.0 mL" in text for text in shown)
    lines = [c for c in panels(figure)["Axial: CT (HU)"].collections if type(c).__name__ == "QuadContourSet"]
    assert len(lines) == 1


def test_all_panels_have_one_scale_and_the_bar_is_50_mm(figure) -> None:
    view = view_of(case()["label"])
    width, height = figure.get_size_inches() * figure.dpi
    scales = []
    for plane in PLANES:
        for name, axes in panels(figure).items():
            if name.startswith(plane.name):
                box = axes.get_position()
                across, down = view.extent(plane)
                scales += [box.width * width / across, box.height * height / down]
        axes = panels(figure)[f"{plane.name}: CT (HU)"]
        (bar,) = axes.get_lines()
        assert np.ptp(bar.get_xdata()) * view.extent(plane)[0] == pytest.approx(50)
        assert np.ptp(bar.get_ydata()) == 0
        assert "50 mm" in [text.get_text() for text in axes.texts]
        assert [text.get_text() for text in axes.texts][:4] == list(plane.letters)
    assert scales == pytest.approx([scales[0]] * len(scales))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"case": "A case with a very long name " * 8, "model": "model-" * 40},
        {"attention_fine": None, "attention_coarse": None, "uncertainty": None, "case": "name " * 40},
    ],
    ids=["plain", "long names", "two columns"],
)
def test_no_text_is_cut_off_or_lies_on_another(changes: dict) -> None:
    figure = case_figure(**case(**changes))
    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    width, height = figure.get_size_inches() * figure.dpi
    found = [*figure.texts, *(t for legend in figure.legends for t in legend.get_texts())]
    found += [text for axes in figure.axes for text in (*axes.texts, *axes.get_xticklabels())]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in found if text.get_text()]
    assert len(boxes) > 30
    for text, box in boxes:
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
        assert inside, f"{text!r} leaves the picture"
    for (first, one), (second, other) in combinations(boxes, 2):
        assert not one.overlaps(other), f"{first!r} lies on {second!r}"


def test_flipped_and_permuted_images_give_the_same_picture(tmp_path: Path) -> None:
    pictures = []
    cube = {"size": (40, 40, 40), "spacing": (4.0, 4.0, 4.0)}
    for name in ("identity", "flipped", "permuted"):
        ramp = image_of(lambda x, y, z: (x + 2 * y - z + 300).astype(np.float32), DIRECTIONS[name], **cube)
        small = case(images={"CT": ramp}, label=image_of(ellipsoid, DIRECTIONS[name], **cube))
        small |= dict.fromkeys(("reference", "attention_coarse", "uncertainty", "attention_fine"))
        render_case(tmp_path / f"{name}.png", **small)
        pictures.append(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"{name}.png"))).astype(int))
    assert pictures[0].shape[:2] == pictures[1].shape[:2] == pictures[2].shape[:2]
    assert pictures[0].std() > 20
    for other in pictures[1:]:
        assert (np.abs(other - pictures[0]).max(axis=-1) > 8).mean() < 1e-3


def test_the_file_is_a_png_of_about_1500_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a picture é.png"
    render_case(path, **case())
    assert path.read_bytes().startswith(b"\x89PNG")
    width, height = sitk.ReadImage(str(path)).GetSize()
    assert 1200 <= width <= 1500
    assert 800 <= height <= 1250


def test_outlines_lie_where_the_mask_ends(figure) -> None:
    view = view_of(case()["label"])
    axes = panels(figure)["Axial: CT (HU)"]
    predicted, expected = (c for c in axes.collections if type(c).__name__ == "QuadContourSet")
    for outline, half in ((predicted, 15), (expected, 17)):
        points = np.concatenate([path.vertices for path in outline.get_paths()])
        across = (points[:, 0].min() + np.array([0, np.ptp(points[:, 0])])) * view.extent(AXIAL)[0] + view.low[0]
        assert across == pytest.approx([-40 - half, -40 + half], abs=2.5)
    assert predicted.get_edgecolor() != pytest.approx(expected.get_edgecolor())


def test_without_matplotlib_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"matplotlib.*TeachFormer\[report\]"):
        case_figure(**case())
