"""``teachformer demo``: its files, its Dice, its page; with a predictor of known answers, and as a real program."""

import argparse
import base64
import contextlib
import functools
import io
import json
import math
import re
import sys
import types
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from TeachFormerCore.commands import demo
from TeachFormerCore.data import phantom as phantom_module
from TeachFormerCore.errors import InputError, MissingDependencyError
from TeachFormerCore.evaluation.page import CasePage, measures, plain, render_page
from TeachFormerCore.paths import SHIPPED_MODELS

FILES = {
    "mask.nii.gz",
    "attention_fine.nii.gz",
    "attention_coarse.nii.gz",
    "uncertainty.nii.gz",
    "statistics.json",
    "picture.png",
}
CARD = {
    "name": "sts_ct_pet",
    "version": "1.2",
    "description": "a student <of> four teachers",
    "channels": [{"name": name, "modality": name, "normalisation": {}, "optional": False} for name in ("CT", "PET")],
    "labels": [{"value": 1, "name": "GTV", "color": [230, 159, 0], "terminology": None}],
    "image_size": [64, 48, 48],
    "training": {
        "dataset": "STS_PETCT_MR",
        "licence": "CC BY 3.0",
        "fold": "all",
        "training_patients": ["STS_014"],
        "tuning_patients": [],
    },
    "accuracy": {"dice": {"mean": 0.71, "ci95": [0.65, 0.76]}},
    "seconds": {"cpu": 2.5},
    "intended_use": "Research only.",
}
NOTICE = "PET (3 x 3 x 3 mm) was resampled onto the grid of CT."


# A second each: drawn once.
thigh = functools.cache(phantom_module.thigh_phantom)


class FakePredictor:
    """Answers with every voxel above SUV 2.5."""

    card = CARD

    def __init__(self, model=None, *, device="auto", runtime="auto") -> None:
        self.device = device

    def run(self, images: dict[str, sitk.Image], **_: object) -> types.SimpleNamespace:
        label = sitk.Cast(images["PET"] > 2.5, sitk.sitkUInt8)
        ramp = sitk.Cast(label, sitk.sitkFloat32)
        maps = {"attention_fine": ramp * 0.9, "attention_coarse": ramp * 0.6, "uncertainty": ramp * 0.25}
        return types.SimpleNamespace(label=label, notices=(NOTICE,), **maps)


def use(patch: pytest.MonkeyPatch, predictor: type) -> None:
    module = types.ModuleType("TeachFormerCore.inference.predictor")
    module.Predictor = predictor  # type: ignore[attr-defined]
    patch.setitem(sys.modules, module.__name__, module)
    patch.setattr(phantom_module, "thigh_phantom", lambda: thigh(0))


def run_demo(*options: object) -> int:
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    return demo.run(parser.parse_args([str(option) for option in options]))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose STS_PETCT_MR holds one case, another phantom under the real case's name."""
    folder = tmp_path_factory.mktemp("data é")
    dataset = folder / "STS_PETCT_MR"
    for part in ("imagesTr", "labelsTr"):
        (dataset / part).mkdir(parents=True)
    phantom = thigh(4)
    for number, image in enumerate((*phantom.images.values(), phantom.images["CT"])):
        sitk.WriteImage(image, str(dataset / "imagesTr" / f"STS_014_{number:04d}.nii.gz"))
    sitk.WriteImage(phantom.label, str(dataset / "labelsTr" / "STS_014.nii.gz"))
    description = {
        "channel_names": {"0": "CT", "1": "PET", "2": "MR_T1"},
        "labels": {"background": 0, "GTV": 1},
        "name": "STS_PETCT_MR",
        "licence": "CC BY 3.0",
        "reference": "DOI 10.7937/K9/TCIA.2015.7GO2GSKS",
    }
    (dataset / "dataset.json").write_text(json.dumps(description))
    return folder


class Done:
    """A finished demo of the fake predictor."""

    def __init__(self, folder: Path, code: int, output: str, errors: str) -> None:
        self.folder, self.code, self.output, self.errors = folder, code, output, errors
        self.page = (folder / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    root = tmp_path_factory.mktemp("a folder é")
    output, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        use(patch, FakePredictor)
        patch.setenv("TEACHFORMER_DATA", str(data))
        patch.chdir(root)
        code = run_demo("--output", root / "the demo")
    return Done(root / "the demo", code, output.getvalue(), errors.getvalue())


def read(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def expected_dice(seed: int) -> float:
    phantom = thigh(seed)
    hot, tumour = sitk.GetArrayFromImage(phantom.images["PET"]) > 2.5, sitk.GetArrayFromImage(phantom.label) > 0
    return 2 * np.sum(hot & tumour) / (np.sum(hot) + np.sum(tumour))


def test_every_file_of_the_contract_is_there(done: Done) -> None:
    assert done.code == 0
    assert {path.name for path in (done.folder / "STS_014").iterdir()} == FILES
    own = {"ct.nii.gz", "pet.nii.gz", "label.nii.gz"}
    assert {path.name for path in (done.folder / "phantom").iterdir()} == FILES | own
    assert {path.name for path in done.folder.iterdir()} == {"phantom", "STS_014", "index.html"}


def test_the_phantom_and_its_results_are_written_on_one_grid(done: Done) -> None:
    folder, phantom = done.folder / "phantom", thigh(0)
    for name, image in (("ct", phantom.images["CT"]), ("pet", phantom.images["PET"]), ("label", phantom.label)):
        assert np.array_equal(read(folder / f"{name}.nii.gz"), sitk.GetArrayFromImage(image))
    for path in folder.glob("*.nii.gz"):
        image = sitk.ReadImage(str(path))
        assert image.GetSize() == phantom.label.GetSize()
        assert image.GetOrigin() == pytest.approx(phantom.label.GetOrigin(), abs=1e-3)
        assert image.GetSpacing() == pytest.approx(phantom.label.GetSpacing(), abs=1e-5)
    assert np.array_equal(read(folder / "mask.nii.gz") > 0, read(folder / "pet.nii.gz") > 2.5)
    maxima = {
        name: read(folder / f"{name}.nii.gz").max() for name in ("attention_fine", "attention_coarse", "uncertainty")
    }
    assert maxima == pytest.approx({"attention_fine": 0.9, "attention_coarse": 0.6, "uncertainty": 0.25})


def test_the_printed_lines_tell_dice_time_memory_and_what_was_trained_on(done: Done) -> None:
    phantom, real, last = done.output.strip().splitlines()
    assert re.fullmatch(rf"phantom: Dice {expected_dice(0):.3f}, \d+\.\d s, peak memory \d+ MB, in .*phantom", phantom)
    assert real.startswith(f"STS_014: Dice {expected_dice(4):.3f} (training case), ")
    assert last == f"Open {done.folder / 'index.html'} in a browser."
    assert done.errors.splitlines() == [f"note: phantom: {NOTICE}", f"note: STS_014: {NOTICE}"]


def test_statistics_are_those_of_the_mask(done: Done) -> None:
    statistics = json.loads((done.folder / "STS_014" / "statistics.json").read_text(encoding="utf-8"))
    (label,) = statistics["labels"]
    mask = read(done.folder / "STS_014" / "mask.nii.gz") > 0
    assert label["volume_ml"] == pytest.approx(mask.sum() * 1.953125**2 * 3.27 / 1000, rel=1e-5)
    assert label["mean_uncertainty"] == pytest.approx(0.25)
    assert label["pet"]["suv_max"] == pytest.approx(sitk.GetArrayFromImage(thigh(4).images["PET"]).max(), abs=1e-3)
    assert statistics["notices"] == [NOTICE]
    assert statistics["pet_units"] == "as given (SUV)"
    assert Path(statistics["reference"]).is_file(), "a path, as teachformer segment says it"
    assert statistics["reference"].endswith("STS_014_0000.nii.gz")


class Tags(HTMLParser):
    """Start tags and their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_and_needs_no_network(done: Done) -> None:
    page = Tags(done.page)
    assert page.open == []
    names = [tag for tag, _ in page.tags]
    assert not {"script", "link", "iframe", "object"} & set(names)
    sources = [attributes[key] for _, attributes in page.tags for key in ("src", "href", "srcset") if key in attributes]
    assert len(sources) == 2
    for source, case in zip(sources, ("phantom", "STS_014"), strict=True):
        assert source is not None
        picture = base64.b64decode(source.removeprefix("data:image/png;base64,"), validate=True)
        assert picture == (done.folder / case / "picture.png").read_bytes()
    assert "url(" not in done.page
    assert "@import" not in done.page
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in [a for _, a in page.tags]
    assert "prefers-color-scheme: dark" in done.page
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")


def test_the_page_says_what_a_reader_must_know(done: Done) -> None:
    text = " ".join(Tags(done.page).text.split())
    for expected in (
        f"Dice {expected_dice(0):.3f}",
        f"Dice {expected_dice(4):.3f} Training case",
        "sts_ct_pet 1.2",
        "a student <of> four teachers",
        "Research only.",
        "dice: mean 0.71, ci95 0.65 to 0.76",
        "STS data: CC BY 3.0, modified",
        "DOI 10.7937/K9/TCIA.2015.7GO2GSKS",
        NOTICE,
        "SUVmax",
        "TeachFormer 0",
    ):
        assert expected in text
    assert text.count("Training case") == 1  # the phantom is none
    assert text.count("CC BY 3.0, modified") == 1


def test_without_the_data_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    use(monkeypatch, FakePredictor)
    monkeypatch.setenv("TEACHFORMER_DATA", str(tmp_path / "nowhere"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert run_demo() == 0
    folder = tmp_path / "here" / "demo"  # the default
    assert {path.name for path in folder.iterdir()} == {"phantom", "index.html"}
    said = [line for line in capsys.readouterr().out.splitlines() if "STS_PETCT_MR was not found" in line]
    assert len(said) == 1
    assert "TEACHFORMER_DATA" in said[0]
    page = Tags((folder / "index.html").read_text(encoding="utf-8")).text
    assert said[0] in page
    assert "modified" not in page


def test_a_real_case_the_model_cannot_take_leaves_the_phantom_and_exit_1(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    class Small(FakePredictor):
        runs = 0

        def run(self, images: dict[str, sitk.Image], **options: object) -> types.SimpleNamespace:
            self.runs += 1
            if self.runs == 2:  # the phantom comes first
                raise InputError("The image covers 900 mm.")
            return super().run(images, **options)

    use(monkeypatch, Small)
    monkeypatch.setenv("TEACHFORMER_DATA", str(data))
    assert run_demo("--output", tmp_path / "demo") == 1
    said = "STS_014 could not be segmented: The image covers 900 mm."
    assert said in capsys.readouterr().out
    assert said in (tmp_path / "demo" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "card", "message"),
    [
        (["--output", "taken"], CARD, "taken.*could not be created"),
        (["--output", "link/STS_PETCT_MR/demo"], CARD, "data folder.*never written to"),
        (
            ["--output", "demo"],
            CARD | {"channels": [*CARD["channels"], {"name": "MR_T1", "modality": "MR", "optional": False}]},
            "needs MR_T1.*CT and PET only",
        ),
    ],
    ids=["a file in the way", "inside the data", "another modality"],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(
    options: list, card: dict, message: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, type("Fake", (FakePredictor,), {"card": card}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEACHFORMER_DATA", str(data))
    (tmp_path / "taken").write_text("a file")
    (tmp_path / "link").symlink_to(data)
    before = sorted(tmp_path.rglob("*")) + sorted(data.rglob("*"))
    with pytest.raises(InputError, match=message):
        run_demo(*options)
    assert sorted(tmp_path.rglob("*")) + sorted(data.rglob("*")) == before


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_a_missing_package_is_named_before_anything_is_written(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, FakePredictor)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=rf"'{package}'.*TeachFormer\[report\]"):
        run_demo("--output", tmp_path / "demo")
    assert list(tmp_path.iterdir()) == []


def test_the_page_escapes_every_text(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>\""
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"png")
    label = {
        "value": 1,
        "name": evil,
        "volume_ml": 0.0,
        "components": 0,
        "mean_uncertainty": None,
        "channels": {"CT": dict.fromkeys(("mean", "p5", "p95"))},
        "pet": None,
    }
    case = CasePage(
        name=evil,
        about=evil,
        picture=picture,
        statistics={"labels": [label], "notices": [evil], "pet_units": evil},
        dice=None,
        seen=False,
        seconds=1.0,
        memory_mb=None,
        credit=evil,
    )
    card = CARD | {"name": evil, "version": evil, "description": evil, "intended_use": evil, "accuracy": {evil: evil}}
    html = render_page(title=evil, cases=[case], card=card, versions={evil: evil}, notes=[evil])
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 15
    assert "None" not in html
    assert "Dice" not in html
    assert "Peak memory" not in html


def test_measures_by_hand() -> None:
    label = {
        "volume_ml": 1234.56,
        "components": 2,
        "mean_uncertainty": 0.12345,
        "channels": {
            "CT": {"mean": 41.26, "p5": 18.0, "p95": 64.04},
            "PET": {"mean": 9.0, "p5": 2.0, "p95": 20.0},
        },
        "pet": {"suv_max": 29.444, "suv_mean": 9.0, "suv_peak": None, "mtv_ml": 1234.56, "tlg": 11111.04},
    }
    assert measures({"labels": [label]}, CARD) == [
        ("Volume", "mL", ["1,234.6"]),
        ("Separate parts", "", ["2"]),
        ("Mean uncertainty", "0-1", ["0.123"]),
        ("SUVmax", "SUV", ["29.44"]),
        ("SUVmean", "SUV", ["9.00"]),
        ("MTV", "mL", ["1,234.6"]),
        ("TLG", "SUV x mL", ["11,111.0"]),
        ("CT, mean", "HU", ["41.3"]),
        ("CT, 5th to 95th percentile", "HU", ["18.0 to 64.0"]),
        ("PET, 5th to 95th percentile", "SUV", ["2.0 to 20.0"]),
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        ("cross-validated", "cross-validated"),
        (0.71234, "0.712"),
        ([0.6, 0.8], "0.6 to 0.8"),
        ({"cpu": 2.5, "cuda": 0.3}, "cpu 2.5, cuda 0.3"),
        ({"dice": {"mean": 0.7, "ci95": [0.6, 0.8]}, "note": None}, "dice: mean 0.7, ci95 0.6 to 0.8"),
    ],
)
def test_card_values_as_plain_text(value: object, text: str) -> None:
    assert plain(value) == text


def test_the_program_with_a_tiny_model(cli, tiny_model: Path, data: Path, tmp_path: Path) -> None:
    result = cli("demo", "--model", tiny_model, "--output", "out", cwd=tmp_path, env={"TEACHFORMER_DATA": str(data)})
    assert result.returncode == 0, result.stderr
    assert re.search(r"^phantom: Dice [01]\.\d{3}, \d+\.\d s", result.stdout, re.MULTILINE)
    assert "(training case)" not in result.stdout
    for case in ("phantom", "STS_014"):
        assert {path.name for path in (tmp_path / "out" / case).iterdir()} >= FILES
        assert "NaN" not in (tmp_path / "out" / case / "statistics.json").read_text(encoding="utf-8")
    assert "random weights, for tests" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


@pytest.mark.skipif(not list(SHIPPED_MODELS.glob("*/model.json")), reason="no model ships with this checkout")
def test_the_shipped_model_finds_the_tumour_of_the_phantom(cli, tmp_path: Path) -> None:
    result = cli("demo", cwd=tmp_path, env={"TEACHFORMER_DATA": str(tmp_path)})
    assert result.returncode == 0, result.stderr
    found = re.search(r"^phantom: Dice (\d\.\d+), (\d+\.\d) s", result.stdout, re.MULTILINE)
    assert found, result.stdout
    assert float(found.group(1)) > 0.6
    statistics = json.loads((tmp_path / "demo" / "phantom" / "statistics.json").read_text(encoding="utf-8"))
    assert 60 < statistics["labels"][0]["volume_ml"] < 250
    assert math.isfinite(statistics["labels"][0]["pet"]["suv_peak"])
    assert (tmp_path / "demo" / "index.html").is_file()
