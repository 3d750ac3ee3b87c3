"""What the Extensions Index and Slicer's build read: one name, one category, everything listed that is on disk."""

import ast
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import TeachFormerCore

REPOSITORY = Path(__file__).parents[2]
CORE = REPOSITORY / "TeachFormerCore"
CLI = REPOSITORY / "TeachFormerSlicer" / "TeachFormerCLI"
MODULE = REPOSITORY / "TeachFormerSlicer" / "TeachFormer"
RAW = "https://raw.githubusercontent.com/TeachFormer/SlicerTeachFormer/main/"

# Stand-ins for what a real Slicer brings: the same arguments, parsed as strictly; what they note is compared, what they
# install is looked at file by file. They prove the calls against our reading of Slicer's macros, not against Slicer.
SLICER_LIB = "lib/Slicer-5.12"
STAND_IN = r"""
cmake_minimum_required(VERSION 3.16)
project(StandIn NONE)
macro(project name)
  set(PROJECT_NAME ${name})
endmacro()
function(note what)
  file(APPEND "${CMAKE_BINARY_DIR}/noted.txt" "${what}=${ARGN}\n")
endfunction()
function(install_files destination)
  foreach(file ${ARGN})
    if(IS_ABSOLUTE "${file}" OR NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${file}")
      message(FATAL_ERROR "not a relative path of a file: ${file}")
    endif()
    get_filename_component(folder "${file}" DIRECTORY)
    install(FILES "${file}" DESTINATION "SLICER_LIB/${destination}/${folder}")
  endforeach()
endfunction()
macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MODULE "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MODULE_UNPARSED_ARGUMENTS OR NOT MODULE_NAME)
    message(FATAL_ERROR "slicerMacroBuildScriptedModule called wrongly: ${ARGN}")
  endif()
  note(module ${MODULE_NAME})
  if(MODULE_WITH_SUBDIR)
    install_files(qt-scripted-modules/${MODULE_NAME} ${MODULE_SCRIPTS} ${MODULE_RESOURCES})
  else()
    install_files(qt-scripted-modules ${MODULE_SCRIPTS} ${MODULE_RESOURCES})
  endif()
endmacro()
function(slicer_add_python_unittest)
  cmake_parse_arguments(TEST "" "SCRIPT" "" ${ARGN})
  if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${TEST_SCRIPT}")
    message(FATAL_ERROR "slicer_add_python_unittest called wrongly: ${ARGN}")
  endif()
  note(unittest ${TEST_SCRIPT})
endfunction()
function(slicer_add_python_test)
  cmake_parse_arguments(TEST "" "SCRIPT" "SLICER_ARGS;SCRIPT_ARGS" ${ARGN})
  if(NOT EXISTS "${TEST_SCRIPT}" AND NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${TEST_SCRIPT}")
    message(FATAL_ERROR "slicer_add_python_test called wrongly: ${ARGN}")
  endif()
  note(test ${TEST_SCRIPT})
endfunction()
set(BUILD_TESTING ON)
add_subdirectory("${EXTENSION}" extension)
""".replace("SLICER_LIB", SLICER_LIB)
SLICER = {
    "SlicerConfig.cmake": """
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/Use.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/Generate.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/Pack.cmake")
""",
    "Use.cmake": 'list(APPEND CMAKE_MODULE_PATH "${CMAKE_CURRENT_LIST_DIR}")\n',
    "SlicerMacroBuildScriptedCLI.cmake": """
macro(SlicerMacroBuildScriptedCLI)
  cmake_parse_arguments(CLI "NO_INSTALL;VERBOSE" "NAME;FOLDER" "" ${ARGN})
  if(CLI_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "SlicerMacroBuildScriptedCLI called wrongly: ${ARGN}")
  endif()
  install_files(cli-modules ${CLI_NAME}.py ${CLI_NAME}.xml)
  note(cli ${CLI_NAME})
endmacro()
""",
    "Generate.cmake": """
note(name ${PROJECT_NAME})
foreach(key HOMEPAGE CATEGORY CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  note(${key} "${EXTENSION_${key}}")
endforeach()
""",
    "Pack.cmake": """
note(packed yes)
set(CPACK_GENERATOR TGZ)
set(CPACK_PACKAGE_FILE_NAME package)
set(CPACK_INCLUDE_TOPLEVEL_DIRECTORY OFF)
include(CPack)
""",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, list[str]], Path]:
    """What CMake hands to Slicer, and the unpacked package: the extension configured, built and packed."""
    if shutil.which("cmake") is None:
        pytest.skip("no cmake on this machine")
    folder = tmp_path_factory.mktemp("cmake")
    (folder / "CMakeLists.txt").write_text(STAND_IN)
    for name, text in SLICER.items():
        (folder / name).write_text(text)
    source = folder / "SlicerTeachFormer"  # what a user would clone, and nothing that lies about here
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, capture_output=True, encoding="utf-8",
    )  # fmt: skip
    if listed.returncode == 0:
        for name in listed.stdout.splitlines():
            if (REPOSITORY / name).is_file():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(REPOSITORY / name, source / name)
    else:
        source = REPOSITORY
    build = folder / "build"
    for command in (
        ["cmake", "-S", folder, "-B", build, f"-DEXTENSION={source}", f"-DSlicer_DIR={folder}"],
        ["cmake", "--build", build],
        ["cmake", "--build", build, "--target", "package"],
    ):
        done = subprocess.run(list(map(str, command)), capture_output=True, encoding="utf-8")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Warning" not in done.stderr, done.stderr
    noted: dict[str, list[str]] = {}
    for line in (build / "noted.txt").read_text(encoding="utf-8").splitlines():
        key, value = line.split("=", 1)
        noted.setdefault(key, []).append(value)
    package = folder / "package"
    shutil.unpack_archive(build / "package.tar.gz", package)
    return noted, package / SLICER_LIB


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


def test_cmake_configures_and_passes_the_settings_on(built: tuple[dict[str, list[str]], Path]) -> None:
    noted, _package = built
    settings = cmake_settings()
    for key in ("name", "HOMEPAGE", "CATEGORY", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS"):
        assert noted[key] == [settings[key]]
    assert sorted(noted["module"]) == ["TeachFormer", "TeachFormerCore"]
    assert (noted["cli"], noted["packed"]) == (["TeachFormerCLI"], ["yes"])
    assert noted["unittest"] == ["TeachFormer.py"]
    assert noted["test"][0].endswith("Testing/slicer/in_slicer.py")


def test_the_package_holds_every_file_and_no_other(built: tuple[dict[str, list[str]], Path]) -> None:
    """The whole tree, file by file: core, weights, module, user interface, CLI; byte for byte what is in the source."""
    _noted, package = built
    packed = {file.relative_to(package).as_posix(): file for file in package.rglob("*") if file.is_file()}
    wanted = {}
    for root, target, patterns in (
        (CORE, "qt-scripted-modules/TeachFormerCore", ("*",)),
        (MODULE, "qt-scripted-modules", ("TeachFormer.py", "TeachFormerLib/**/*.py", "Resources/**/*")),
        (CLI, "cli-modules", ("TeachFormerCLI.py", "TeachFormerCLI.xml")),
    ):
        for file in (
            file for pattern in patterns for file in (root.rglob("*") if pattern == "*" else root.glob(pattern))
        ):
            if file.is_file() and file.suffix not in (".pyc", ".py~") and file.name != "CMakeLists.txt":
                wanted[f"{target}/{file.relative_to(root).as_posix()}"] = file
    assert sorted(packed) == sorted(wanted)
    for name, file in packed.items():
        assert file.read_bytes() == wanted[name].read_bytes(), name
    for name in (
        "qt-scripted-modules/TeachFormerCore/models/sts_ct_pet/weights.safetensors",
        "qt-scripted-modules/TeachFormerCore/inference/worker.py",
        "qt-scripted-modules/TeachFormer.py",
        "qt-scripted-modules/TeachFormerLib/panels/runsection.py",
        "qt-scripted-modules/Resources/UI/RunPanel.ui",
        "qt-scripted-modules/Resources/Icons/TeachFormer.png",
        "qt-scripted-modules/Resources/requirements.txt",
        "cli-modules/TeachFormerCLI.py",
        "cli-modules/TeachFormerCLI.xml",
    ):
        assert name in packed
    # Only top-level scripts are scanned as modules; a CLI begins with the line, and a module must not.
    assert packed["cli-modules/TeachFormerCLI.py"].read_bytes().startswith(b"#!/usr/bin/env python-real\n")
    for name, file in packed.items():
        assert name.startswith("cli-modules/") or not file.read_bytes().startswith(b"#!"), name
    modules = {name for name in packed if name.startswith("qt-scripted-modules/") and name.count("/") == 1}
    assert modules == {"qt-scripted-modules/TeachFormer.py"}


def test_the_installed_tree_finds_its_core(built: tuple[dict[str, list[str]], Path]) -> None:
    """As Slicer has it: modules and core side by side on the path, and nothing of the source tree."""
    _noted, package = built
    code = "import sys; from TeachFormerCore.paths import SHIPPED_MODELS; print(SHIPPED_MODELS)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True, encoding="utf-8", cwd=package, env={"PYTHONPATH": str(package / "qt-scripted-modules")},
    )  # fmt: skip
    assert Path(done.stdout.strip()) == package / "qt-scripted-modules" / "TeachFormerCore" / "models", done.stderr


def test_the_wheel_and_the_extension_hold_the_same_files() -> None:
    """Resources that CMake's globs and pyproject's package-data name; no file is forgotten in either."""
    text = (CORE / "CMakeLists.txt").read_text(encoding="utf-8")
    cmake = {
        file.relative_to(CORE).as_posix()
        for glob in re.findall(r'"([^"$]+)"', text.split("TEACHFORMER_CORE_RESOURCES", 1)[1].split(")")[0])
        for file in CORE.rglob(glob)
    }
    # By hand: Python 3.10 has no reader of TOML.
    section = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8").split("[tool.setuptools.package-data]\n")[1]
    globs = ast.literal_eval(section[: section.index("]") + 1].removeprefix("TeachFormerCore = "))
    wheel = {file.relative_to(CORE).as_posix() for glob in globs for file in CORE.glob(glob)}
    on_disk = {file.relative_to(CORE).as_posix() for file in CORE.rglob("*") if file.is_file()}
    resources = {name for name in on_disk if not name.endswith((".pyc", ".py", "CMakeLists.txt", ".py~"))}
    assert cmake == wheel == resources


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


def test_the_module_imports_nothing_at_file_scope_that_slicer_lacks() -> None:
    """The standard library, Slicer, VTK, NumPy; torch and TeachFormerCore only inside functions."""
    allowed = {"slicer", "vtk", "numpy", "qt", "ctk", "TeachFormerLib", *sys.stdlib_module_names}
    launched = MODULE / "TeachFormerLib" / "launch.py"
    for file in [MODULE / "TeachFormer.py", *(MODULE / "TeachFormerLib").rglob("*.py")]:
        tree = ast.parse(file.read_text(encoding="utf-8"), feature_version=(3, 9))  # Slicer 5.8 has Python 3.9
        for node in tree.body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            assert {name.partition(".")[0] for name in names} <= allowed, file
        if "panels" not in file.parts and file.name != "widget.py" and file != launched:
            imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
            assert not imported & {"qt", "ctk", "torch"}, f"{file.name} is Qt-free"


def test_nothing_of_the_workplace_and_no_other_address_is_in_the_extension() -> None:
    """Every address is one of the project's; the sample's is the core's."""
    known = ("github.com/TeachFormer/",)
    for file in (REPOSITORY / "TeachFormerSlicer").rglob("*"):
        if file.is_file() and file.suffix in (".py", ".xml", ".ui", ".txt"):
            text = file.read_text(encoding="utf-8")
            for address in re.findall(r"https?://([^\s\"'<>]+)", text):
                assert address.startswith(known), (file, address)
