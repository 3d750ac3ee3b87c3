"""What the module puts into a scene, as Slicer's own classes draw it, compared with stored pictures by regions.

The pictures show a synthetic case. They are made anew by ``python Testing/slicer/test_rendered_views.py``, and then
looked at.
"""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")

sys.path.insert(0, str(Path(__file__).parent))

from stand_ins import core

STORED = Path(__file__).parent / "stored"
SIZE = 240
# Mean colours of a region may differ by so many of 256 levels: drivers smooth edges and letters differently.
TOLERANCE = 4.0
LABELS = [{"value": 1, "name": "GTV", "color": [230, 85, 13], "terminology": None}]


class Case:
    """The phantom with its true mask, and a map that falls off from the tumour's centre; no network is involved."""

    def __init__(self):
        core.install()
        core.new_scene()
        import slicer
        from TeachFormerLib import geometry, results

        from TeachFormerCore.data.image import voxels
        from TeachFormerCore.data.phantom import thigh_phantom

        phantom = thigh_phantom()
        self.ct = core.volume_from(phantom.images["CT"], "CT")
        display = self.ct.GetDisplayNode()
        display.AutoWindowLevelOff()
        display.SetWindowLevel(400, 40)
        self.matrix = geometry.ijkToWorld(self.ct)
        self.label = np.array(voxels(phantom.label))
        index = np.argwhere(self.label)[:, ::-1]
        self.centre = (self.matrix @ [*index.mean(axis=0), 1])[:3]
        z, y, x = np.indices(self.label.shape)
        points = np.stack([x, y, z, np.ones_like(x)], axis=-1) @ self.matrix.T
        self.distance = np.linalg.norm(points[..., :3] - self.centre, axis=-1)
        self.points = points[..., :3]
        self.segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        results.beginSegmentation(self.segmentation, self.ct)
        for entry, image in results.segmentImages(self.label, self.matrix, LABELS):
            results.addSegment(self.segmentation, entry, image)
        self.map = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "map")
        image, voxels_ = results.newImage(self.label.shape, np.dtype(np.float32))
        voxels_[:] = np.exp(-((self.distance / 30) ** 2))
        results.fillVolume(self.map, image, self.matrix)
        slicer.util.setSliceViewerLayers(background=self.ct)
        from rendering import SliceView

        self.views = {name: SliceView(name, (SIZE, SIZE)) for name in ("Red", "Yellow", "Green")}
        for view in self.views.values():
            view.look_at(self.centre, field_of_view_mm=110)

    def show(self, kind, **changes):
        from TeachFormerLib import overlay

        settings = {"opacity": 0.6, "threshold": 0.3, "legend": True, "title": kind.capitalize(), **changes}
        overlay.show(self.map, background=self.ct, kind=kind, **settings)

    def pictures(self):
        """The three views as they are now."""
        return {name: view.render() for name, view in self.views.items()}

    def regions(self, name):
        """``{region: (rows, columns)}`` of the voxels in a view's plane, for pixels inside the picture."""
        view = self.views[name]
        axis = {"Red": 2, "Yellow": 0, "Green": 1}[name]
        near = np.abs(self.points[..., axis] - self.centre[axis]) < 2.0
        inside = self.label == 1
        found = {}
        for region, mask in (
            ("heart of the tumour", inside & (self.distance < 12)),
            ("rest of the tumour", inside & (self.distance > 18) & (self.distance < 22)),
            ("outside", ~inside & (self.distance > 45) & (self.distance < 52)),
        ):
            rows, columns = view.pixels_of(self.points[mask & near])
            fits = (rows >= 0) & (rows < SIZE) & (columns >= 0) & (columns < SIZE - 80)  # not under the legend
            found[region] = rows[fits], columns[fits]
            assert fits.sum() > 20, (name, region)
        return found


SCENES = {
    "segmentation": lambda case: None,
    "attention": lambda case: case.show("attention"),
    "uncertainty": lambda case: case.show("uncertainty"),
}


@pytest.fixture(scope="module")
def case():
    return Case()


def stored(scene_name):
    from PIL import Image

    picture = np.asarray(Image.open(STORED / f"{scene_name}.png"))
    return {name: picture[:, SIZE * n : SIZE * (n + 1)] for n, name in enumerate(("Red", "Yellow", "Green"))}


def difference(one, other, where):
    return np.abs(one[where].mean(axis=0) - other[where].mean(axis=0)).max()


@pytest.mark.parametrize("scene_name", SCENES)
def test_views_look_as_they_were_stored(scene_name, case) -> None:
    SCENES[scene_name](case)
    wanted = stored(scene_name)
    for name, picture in case.pictures().items():
        for region, where in case.regions(name).items():
            assert difference(picture, wanted[name], where) < TOLERANCE, (scene_name, name, region)
        # The legend, or nothing, at the right.
        right = (slice(40, 200), slice(SIZE - 60, SIZE))
        assert np.abs(picture[right].mean((0, 1)) - wanted[name][right].mean((0, 1))).max() < TOLERANCE, name


def test_what_is_drawn_is_what_was_asked_for(case) -> None:
    """Colours in figures: segment over CT, overlay only above the threshold, more of it with more opacity."""
    from TeachFormerLib import overlay

    overlay.hide([case.map])
    red = case.views["Red"]
    plain = red.render()
    regions = case.regions("Red")
    heart, _rim, outside = (plain[where].mean(axis=0) for where in regions.values())
    assert heart[0] > heart[2] + 40, "the segment is orange"
    assert np.ptp(outside) < 12, "the CT around it is grey"
    case.show("attention", threshold=0.3, opacity=0.4)
    weak = red.render()
    case.show("attention", threshold=0.3, opacity=1.0)
    strong = red.render()
    where = regions["heart of the tumour"]
    assert difference(weak, plain, where) > 10
    assert difference(strong, plain, where) > difference(weak, plain, where)
    assert difference(strong, plain, regions["outside"]) < 1, "there the map is exp(-2) = 0.1 and less"
    case.show("attention", threshold=0.95, opacity=1.0)
    assert difference(red.render(), plain, regions["rest of the tumour"]) < 1


def test_the_comparison_would_see_a_missing_overlay(case) -> None:
    one, other = stored("segmentation"), stored("attention")
    for name in one:
        assert difference(one[name], other[name], case.regions(name)["heart of the tumour"]) > 3 * TOLERANCE


if __name__ == "__main__":
    from rendering import montage, save

    STORED.mkdir(exist_ok=True)
    shown = Case()
    for scene, prepare in SCENES.items():
        prepare(shown)
        save(montage(list(shown.pictures().values())), STORED / f"{scene}.png")
