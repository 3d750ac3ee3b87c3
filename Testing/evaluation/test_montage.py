"""The contact sheet: real PNGs whose pixels are looked at, and the command."""

import json

import numpy as np
import pytest
import SimpleITK as sitk

pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra report)")

from TeachFormerCore.evaluation.montage import COLOURS, MontageCase, _view, write_montage

ORANGE, BLUE = (tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for colour in COLOURS[:2])


def image(array, *, flips=()):
    volume = sitk.GetImageFromArray(array)
    volume.SetSpacing((1, 1, 2))
    matrix = np.eye(3)
    origin = np.array([-20.0, -20.0, -10.0])
    for axis in flips:
        origin += matrix[:, axis] * (volume.GetSize()[axis] - 1) * volume.GetSpacing()[axis]
        matrix[:, axis] *= -1
        volume = sitk.Flip(volume, [axis == i for i in range(3)])
    volume.SetOrigin(origin.tolist())
    volume.SetDirection(matrix.ravel().tolist())
    return volume


def make_case(name="a", *, flips=(), value=1, empty=False):
    """A bright square at the patient's left and back, with its label."""
    signal, label = np.zeros((10, 40, 40), np.float32), np.zeros((10, 40, 40), np.uint8)
    signal[3:6, 28:34, 26:32] = 100
    if not empty:
        label[3:6, 28:34, 26:32] = value
        label[4, 26:36, 24:34] = value  # the plane in which it is largest
    return MontageCase(name=name, images={"T1": image(signal, flips=flips)}, label=image(label, flips=flips))


def pixels(file):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file))).astype(int)[..., :3]


def near(array, colour, within=40):
    return np.argwhere(np.abs(array - colour).sum(axis=-1) < within)


def draw(path, cases, **options):
    defaults = {"title": "set", "modalities": {"T1": "MR"}, "labels": {"background": 0, "tumour": 1, "node": 2}}
    return write_montage(path, iter(cases), total=len(cases), **{**defaults, **options})


@pytest.mark.parametrize("flips", [(), (0,), (1,), (2,), (0, 1, 2)])
def test_the_outline_lies_around_what_it_outlines(tmp_path, flips):
    (page,) = draw(tmp_path / "m.png", [make_case(flips=flips)])
    array = pixels(page)
    panel = array[70:260, 10:200]
    outline, bright = near(panel, ORANGE), near(panel, (255, 255, 255))
    assert len(outline) > 50
    middle = bright.mean(axis=0)
    np.testing.assert_allclose((outline.min(axis=0) + outline.max(axis=0)) / 2, middle, atol=4)
    assert (outline.min(axis=0) < bright.min(axis=0)).all()
    # The patient's left is right in the picture, the back is below, however the image is stored.
    assert (middle > 95).all()


def test_the_plane_is_the_one_in_which_the_label_is_largest():
    for flips in ((), (2,)):
        view, empty = _view(make_case(flips=flips))
        assert not empty
        assert view.centre[2] == pytest.approx(-10 + 4 * 2)


def test_labels_have_their_colours_and_empty_ones_are_said(tmp_path):
    cases = [make_case("one", value=1), make_case("two", value=2), make_case("none", empty=True)]
    (page,) = draw(tmp_path / "m.png", cases)
    array = pixels(page)
    tiles = [array[50:260, left : left + 200] for left in (10, 210, 410)]
    assert [len(near(tile, ORANGE)) > 50 for tile in tiles] == [True, False, False]
    assert [len(near(tile, BLUE)) > 50 for tile in tiles] == [False, True, False]


def test_pages(tmp_path):
    """48 cases of one channel fill a page; only one case is held at a time."""
    alive = []

    def cases():
        for number in range(50):
            alive.append(number)
            yield make_case(f"case_with_a_rather_long_name_{number}")

    pages = write_montage(
        tmp_path / "m.png", cases(), title="set", modalities={"T1": "MR"}, labels={"tumour": 1}, total=50
    )
    assert [page.name for page in pages] == ["m.png", "m-2.png"]
    assert pixels(pages[1]).shape[0] < pixels(pages[0]).shape[0]
    assert len(alive) == 50


def write_dataset(folder, cases):
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for case in cases:
        sitk.WriteImage(case.images["T1"], str(folder / "imagesTr" / f"{case.name}_0000.nii.gz"))
        sitk.WriteImage(case.label, str(folder / "labelsTr" / f"{case.name}.nii.gz"))
    description = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "tumour": 1}, "name": "small"}
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")


def test_command(cli, tmp_path):
    folder = tmp_path / "data"
    write_dataset(folder, [make_case("a"), make_case("b", empty=True), make_case("c")])
    (folder / "imagesTr" / "c_0000.nii.gz").write_bytes(b"broken")
    done = cli("data", "montage", folder, "--output", tmp_path / "m.png")
    assert done.returncode == 1
    assert "failed: c: " in done.stdout
    assert "2 of 3 cases in" in done.stdout
    assert (tmp_path / "m.png").stat().st_size > 5000
    assert cli("data", "montage", folder, "--output", tmp_path / "m.png", "--cases", "a,b").returncode == 0
    for output, cases, message in (
        (folder / "m.png", "a", "never written to"),
        (tmp_path / "m.pdf", "a", "must end in .png"),
        (tmp_path / "m.png", "x", "has no case x"),
    ):
        refused = cli("data", "montage", folder, "--output", output, "--cases", cases)
        assert refused.returncode == 2
        assert message in refused.stderr
