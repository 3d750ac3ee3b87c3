"""What the Extensions Index and Slicer's build read: one name, one category, everything listed that is on disk."""

import ast
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import TeachFormerCore

REPOSITORY = Path(__file__).parents[2]
CORE = REPOSITORY / "TeachFormerCore"
CLI = REPOSITORY / "TeachFormerSlicer" / "TeachFormerCLI"
RAW = "https://raw.githubusercontent.com/TeachFormer/SlicerTeachFormer/main/"

# Stand-ins for what a real Slicer brings: the same arguments, parsed as strictly, noted instead of built. They prove
# the calls against our reading of Slicer's macros, not against Slicer.
STAND_IN = r"""
cmake_minimum_required(VERSION 3.16)
project(StandIn NONE)
macro(project name)
  set(PROJECT_NAME ${name})
endmacro()
function(note what)
  file(APPEND "${CMAKE_BINARY_DIR}/noted.txt" "${what}=${ARGN}\n")
endfunction()
macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MODULE "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MODULE_UNPARSED_ARGUMENTS OR NOT MODULE_NAME OR NOT MODULE_WITH_SUBDIR)
    message(FATAL_ERROR "slicerMacroBuildScriptedModule called wrongly: ${ARGN}")
  endif()
  note(module ${MODULE_NAME})
  note(scripts ${MODULE_SCRIPTS})
  note(resources ${MODULE_RESOURCES})
endmacro()
add_subdirectory("${EXTENSION}" extension)
"""
SLICER = {
    "SlicerConfig.cmake": """
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/Use.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/Generate.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/CPack.cmake")
""",
    "Use.cmake": 'list(APPEND CMAKE_MODULE_PATH "${CMAKE_CURRENT_LIST_DIR}")\n',
    "SlicerMacroBuildScriptedCLI.cmake": """
macro(SlicerMacroBuildScriptedCLI)
  cmake_parse_arguments(CLI "NO_INSTALL;VERBOSE" "NAME;FOLDER" "" ${ARGN})
  foreach(ending py xml)
    if(CLI_UNPARSED_ARGUMENTS OR NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${CLI_NAME}.${ending}")
      message(FATAL_ERROR "SlicerMacroBuildScriptedCLI called wrongly: ${ARGN}")
    endif()
  endforeach()
  note(cli ${CLI_NAME})
endmacro()
""",
    "Generate.cmake": """
note(name ${PROJECT_NAME})
foreach(key HOMEPAGE CATEGORY CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  note(${key} "${EXTENSION_${key}}")
endforeach()
""",
    "CPack.cmake": "note(packed yes)\n",
}


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What CMake hands to Slicer when it configures the extension."""
    if shutil.which("cmake") is None:
        pytest.skip("no cmake on this machine")
    folder = tmp_path_factory.mktemp("cmake")
    (folder / "CMakeLists.txt").write_text(STAND_IN)
    for name, text in SLICER.items():
        (folder / name).write_text(text)
    command = ["cmake", "-S", folder, "-B", folder / "build", f"-DEXTENSION={REPOSITORY}", f"-DSlicer_DIR={folder}"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    lines = (folder / "build" / "noted.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines)


def cmake_settings() -> dict[str, str]:
    """The one-line settings, as the index reads them: by a regular expression."""
    text = (REPOSITORY / "CMakeLists.txt").read_text(encoding="utf-8")
    settings = dict(re.findall(r'^set\(EXTENSION_([A-Z]+) "([^"\n]*)"\)$', text, re.MULTILINE))
    return settings | {"name": re.findall(r"^project\((\w+)\)$", text, re.MULTILINE)[0]}


def s4ext() -> dict[str, str]:
    lines = (REPOSITORY / "TeachFormer.s4ext").read_text(encoding="utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))


def test_the_catalog_entry_holds_what_its_schema_allows() -> None:
    data = (REPOSITORY / "TeachFormer.json").read_bytes()
    assert b"\r" not in data
    assert data.endswith(b"}\n")
    entry = json.loads(data)
    assert list(entry) == [
        "$schema", "build_dependencies", "build_subdirectory", "category", "scm_revision", "scm_url", "tier",
    ]  # fmt: skip
    assert entry["$schema"].endswith("/Schemas/slicer-extension-catalog-entry-schema-v1.0.1.json#")
    assert entry["tier"] in (1, 3, 5)
    assert entry["scm_url"].rsplit("/", 1)[1] == "SlicerTeachFormer"


def test_json_s4ext_and_cmake_agree() -> None:
    entry, old, cmake = (
        json.loads((REPOSITORY / "TeachFormer.json").read_text(encoding="utf-8")),
        s4ext(),
        cmake_settings(),
    )
    assert cmake["name"] == "TeachFormer"
    assert entry["category"] == old["category"] == cmake["CATEGORY"] == "Segmentation"
    assert entry["build_dependencies"] == old["depends"].split() == cmake["DEPENDS"].split() == ["PyTorch"]
    assert entry["scm_url"] == old["scmurl"] == old["homepage"] == cmake["HOMEPAGE"]
    assert entry["scm_revision"] == old["scmrevision"]
    assert entry["build_subdirectory"] == old["build_subdirectory"]
    for key in ("contributors", "description", "iconurl", "screenshoturls"):
        assert old[key] == cmake[key.upper()], key
    assert (old["scm"], old["enabled"]) == ("git", "1")


def test_every_picture_of_the_catalog_is_in_the_repository() -> None:
    settings = cmake_settings()
    for url in (settings["ICONURL"], *settings["SCREENSHOTURLS"].split()):
        assert url.startswith(RAW)
        assert (REPOSITORY / url.removeprefix(RAW)).read_bytes().startswith(b"\x89PNG")
    assert int.from_bytes((REPOSITORY / "TeachFormer.png").read_bytes()[16:20], "big") == 128
    assert (REPOSITORY / "LICENSE").is_file()


def test_cmake_configures_and_passes_the_settings_on(configured: dict[str, str]) -> None:
    settings = cmake_settings()
    for key in ("name", "HOMEPAGE", "CATEGORY", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS"):
        assert configured[key] == settings[key]
    assert (configured["module"], configured["cli"], configured["packed"]) == (
        "TeachFormerCore",
        "TeachFormerCLI",
        "yes",
    )


def test_slicer_gets_every_file_of_the_package(configured: dict[str, str]) -> None:
    """Scripts and resources are relative paths, and together all that a wheel holds; no file is forgotten."""
    scripts, resources = (set(configured[key].split(";")) for key in ("scripts", "resources"))
    on_disk = {file.relative_to(CORE).as_posix() for file in CORE.rglob("*") if file.is_file()}
    on_disk = {name for name in on_disk if not name.endswith((".pyc", "CMakeLists.txt", ".py~"))}
    assert scripts == {name for name in on_disk if name.endswith(".py")}
    assert resources == on_disk - scripts
    assert "models/sts_ct_pet/weights.safetensors" in resources
    # By hand: Python 3.10 has no reader of TOML.
    section = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8").split("[tool.setuptools.package-data]\n")[1]
    globs = ast.literal_eval(section[: section.index("]") + 1].removeprefix("TeachFormerCore = "))
    wheel = {file.relative_to(CORE).as_posix() for glob in globs for file in CORE.glob(glob)}
    assert resources == wheel, "package-data of pyproject.toml and the globs of CMake must name the same files"


def test_the_module_description_fits_the_extension() -> None:
    root = ET.parse(CLI / "TeachFormerCLI.xml").getroot()
    assert root.tag == "executable"
    assert root.findtext("category") == cmake_settings()["CATEGORY"]
    assert root.findtext("version") == TeachFormerCore.__version__
    for parameter in root.iterfind("parameters/*[name]"):
        for part in ("label", "description"):
            assert (parameter.findtext(part) or "").strip(), (parameter.findtext("name"), part)


def test_slicer_takes_the_cli_for_a_cli_and_nothing_else() -> None:
    script = (CLI / "TeachFormerCLI.py").read_bytes()
    assert script.startswith(b"#!/usr/bin/env python-real\n")
    for file in CORE.rglob("*.py"):
        assert not file.read_bytes().startswith(b"#!"), file
