"""The CLI module's XML by the rules of SlicerExecutionModel, and the argument list that Slicer makes of it.

The rules are written down here from the model's documentation; they are ours, not Slicer's file.
"""

import importlib.util
import re
import types
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "TeachFormerSlicer" / "TeachFormerCLI" / "TeachFormerCLI.py"
ROOT = ET.parse(SCRIPT.with_suffix(".xml")).getroot()

ABOUT = ("category", "title", "description", "version", "documentation-url", "license", "contributor")
ABOUT += ("acknowledgements",)
COMMON = {"name", "flag", "longflag", "index", "label", "description", "default", "channel"}
# Parameter -> (attributes, elements beyond the common ones).
PARAMETERS = {
    "boolean": ({"hidden"}, set()),
    "integer": ({"hidden"}, {"constraints"}),
    "float": ({"hidden"}, {"constraints"}),
    "double": ({"hidden"}, {"constraints"}),
    "string": ({"hidden", "multiple"}, set()),
    "string-enumeration": ({"hidden"}, {"element"}),
    "file": ({"hidden", "multiple", "fileExtensions"}, set()),
    "directory": ({"hidden", "multiple"}, set()),
    "image": ({"hidden", "multiple", "type", "fileExtensions", "reference"}, set()),
    "region": ({"hidden", "multiple", "coordinateSystem"}, set()),
}
IMAGE_TYPES = ("scalar", "label", "vector", "tensor", "diffusion-weighted", "dynamic-contrast-enhanced")


def parameters():
    return [each for group in ROOT.iterfind("parameters") for each in group if each.tag in PARAMETERS]


def test_the_head_is_in_the_models_order() -> None:
    assert ROOT.tag == "executable"
    tags = [child.tag for child in ROOT]
    assert tags == [*ABOUT, *["parameters"] * tags.count("parameters")]
    for child in ROOT[: len(ABOUT)]:
        assert (child.text or "").strip(), child.tag


def test_every_group_and_parameter_has_what_it_must_and_nothing_else() -> None:
    for group in ROOT.iterfind("parameters"):
        assert set(group.attrib) <= {"advanced"}
        assert [child.tag for child in group][:2] == ["label", "description"]
        assert {child.tag for child in group[2:]} <= set(PARAMETERS), "an unknown kind is passed over without a word"
    for each in parameters():
        attributes, elements = PARAMETERS[each.tag]
        name = each.findtext("name") or ""
        assert set(each.attrib) <= attributes, name
        tags = [child.tag for child in each]
        assert set(tags) <= COMMON | elements, name
        assert all(tags.count(tag) == 1 for tag in set(tags) - {"element"}), f"{name}: an element is given twice"
        assert re.fullmatch(r"[A-Za-z_]\w*", name), "a name becomes a variable"
        assert (each.find("longflag") is None) != (each.find("index") is None), f"{name}: a flag or a place, not both"
        assert each.findtext("longflag") in (None, f"--{name}")
        assert (each.findtext("label") or "").strip(), name
        assert (each.findtext("description") or "").strip().endswith("."), name
        assert ("channel" in tags) == (each.tag in ("image", "file", "directory")), name
        assert each.findtext("channel") in (None, "input", "output"), name
    indexes = sorted(int(each.findtext("index") or 0) for each in parameters() if each.find("index") is not None)
    assert indexes == list(range(len(indexes)))


def test_defaults_fit_their_kind() -> None:
    for each in parameters():
        default = each.findtext("default")
        if each.tag == "boolean":
            assert default == "false", "a flag that is there means yes, so it can only begin as no"
        if each.tag == "string-enumeration":
            assert default in [element.text for element in each.iterfind("element")]
        if each.tag == "image":
            assert each.get("type", "scalar") in IMAGE_TYPES
        if each.tag == "region":
            assert each.get("coordinateSystem") == "ras", "the default is LPS"


def argv(values: dict[str, object], *, window: bool = False) -> list[str]:
    """As Slicer builds it: flags that have a value, in the file's order, then the positional ones.

    Args:
        window: from Slicer's window, whose button for a folder answers "." where none was chosen.

    Raises:
        ValueError: a positional one has no value; Slicer then starts no process.
    """
    flags: list[str] = []
    positional: dict[int, str] = {}
    for each in parameters():
        unset = "." if window and each.tag == "directory" else each.findtext("default") or ""
        value = values.get(each.findtext("name") or "", unset)
        if each.find("index") is not None:
            if value == "":
                raise ValueError(f'No {each.findtext("channel")} data assigned to "{each.findtext("label")}"')
            positional[int(each.findtext("index") or 0)] = str(value)
        elif each.tag == "boolean":
            flags += [each.findtext("longflag") or ""] if value in (True, "true") else []
        elif value != "":
            flags += [each.findtext("longflag") or "", str(value)]
    return [*flags, *(positional[place] for place in sorted(positional))]


@pytest.fixture(scope="module")
def script() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("TeachFormerCLI", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BATCH = ("batchInput", "batchOutput", "resume")
BOTH = ("output", "model", "device", "runtime")


@pytest.mark.parametrize("of_a_batch", [False, True], ids=["a case", "a batch"])
def test_the_script_takes_what_slicer_passes(of_a_batch: bool, script: types.ModuleType) -> None:
    """Everything given, with paths that have spaces and letters beyond ASCII and a region that begins with a minus."""
    values: dict[str, object] = {}
    for each in parameters():
        name = each.findtext("name") or ""
        if name in BOTH or (name in BATCH) == of_a_batch:
            choices = [element.text for element in each.iterfind("element")]
            special = {"boolean": True, "region": "-12.5,30,-7,40,50,60"}
            values[name] = choices[-1] if choices else special.get(each.tag, f"/tmp/Fälle 1/{name}.nrrd")
    parsed = vars(script.parse(argv(values)))
    for name, value in values.items():
        assert str(parsed[name]) == str(value), name


def test_what_is_left_empty_is_left_out(script: types.ModuleType) -> None:
    words = argv({"output": "label.nrrd", "ct": "a.nrrd"})
    assert "--region" not in words
    assert "" not in words
    parsed = vars(script.parse(words))
    assert str(parsed["output"]) == "label.nrrd"
    assert parsed["ct"] == "a.nrrd"
    assert parsed["region"] is None
    assert parsed["device"] == "auto"


def test_slicer_starts_nothing_without_an_output_volume() -> None:
    with pytest.raises(ValueError, match='No output data assigned to "Segmentation"'):
        argv({"batchInput": "cases.csv", "batchOutput": "results"})


def test_the_folder_that_slicers_window_always_passes_makes_no_batch(script: types.ModuleType) -> None:
    words = argv({"output": "label.nrrd", "ct": "a.nrrd"}, window=True)
    assert words[words.index("--batchOutput") + 1] == "."
    assert vars(script.parse(words))["batchInput"] is None


def test_slicers_window_takes_a_table_and_a_folder_of_cases() -> None:
    """Its field for a file takes any path, with file extensions only what ends so; its button for a folder no file."""
    (cases,) = (each for each in parameters() if each.findtext("name") == "batchInput")
    assert (cases.tag, cases.attrib) == ("file", {})


def test_slicer_may_add_a_file_for_return_values(script: types.ModuleType) -> None:
    words = ["--returnparameterfile", "/tmp/x.params", *argv({"output": "label.nrrd", "ct": "a.nrrd"})]
    assert str(vars(script.parse(words))["output"]) == "label.nrrd"
