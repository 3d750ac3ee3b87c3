"""The translation for Python 3.9 (Slicer 5.8), tried on the Python that is here: what 3.9 lacks is taken away first.

That proves the translation and not the interpreter, and needs the packages that compute. Where a real Python 3.9 is
found, the files are also compiled by it, and what needs no package runs in it.
"""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import TeachFormerCore._python39 as python39

REPOSITORY = Path(__file__).parents[1]
CORE = REPOSITORY / "TeachFormerCore"
ROOMS = ("", "data", "inference", "networks", "commands")  # what inference needs; the others are for 3.10 and later

# Installs the translation, then makes zip(strict=) and dataclass(kw_only=) fail for callers in the package.
WITHOUT = """
import builtins, dataclasses, sys
from TeachFormerCore import _python39
_python39.install()
def refusing(function, word):
    def refused(*values, **options):
        if word in options and sys._getframe(1).f_globals.get("__name__", "").startswith("TeachFormerCore"):
            raise TypeError(f"Python 3.9 has no {word}")
        return function(*values, **options)
    return refused
builtins.zip = refusing(zip, "strict")
dataclasses.dataclass = refusing(dataclasses.dataclass, "kw_only")
"""


def test_the_phantom_is_segmented_by_the_translated_package(tiny_model: Path, tmp_path: Path) -> None:
    code = f"""{WITHOUT}
from TeachFormerCore.data.phantom import thigh_phantom
import SimpleITK as sitk, sys
for name, image in thigh_phantom().images.items():
    sitk.WriteImage(image[10:50, 10:50, 10:40], sys.argv[1] + "/" + name + ".nrrd")
from TeachFormerCore.commands import main
inputs = [word for name in ("CT", "PET") for word in ("--input", name + "=" + sys.argv[1] + "/" + name + ".nrrd")]
sys.exit(main(["segment", "--model", sys.argv[2], *inputs, "--output", sys.argv[1] + "/mask.nrrd",
               "--uncertainty", sys.argv[1] + "/u.nrrd", "--statistics", sys.argv[1] + "/s.json"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(tiny_model)],
        capture_output=True, encoding="utf-8", cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {"mask.nrrd", "u.nrrd", "s.json"} <= {file.name for file in tmp_path.iterdir()}


def test_without_the_translation_the_same_python_fails() -> None:
    code = WITHOUT.replace("_python39.install()", "") + "import TeachFormerCore.data.grid"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, encoding="utf-8", cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert "Python 3.9 has no kw_only" in done.stderr


@pytest.mark.parametrize("room", ROOMS)
def test_every_module_parses_as_3_9_and_keeps_no_union_of_types(room: str) -> None:
    """Unions are left in annotations only, which are not evaluated."""
    for file in sorted((CORE / room).glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"), feature_version=(3, 9))
        translated = python39._Translation().visit(tree)
        for node in ast.walk(translated):
            for field in ("annotation", "returns"):
                if getattr(node, field, None) is not None:
                    setattr(node, field, ast.Constant(value=0))
        for node in ast.walk(translated):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
                kinds = [each.value if isinstance(each, ast.Subscript) else each for each in python39._operands(node)]
                names = {each.id for each in kinds if isinstance(each, ast.Name)}
                assert not names & {"str", "int", "float", "bool", "list", "dict", "tuple", "Path"}, (file, node.lineno)
            if isinstance(node, ast.Match if sys.version_info >= (3, 10) else ()):
                raise AssertionError(f"{file}: match is not 3.9")


def test_the_translated_parts_do_what_the_real_ones_do() -> None:
    assert list(python39.strict_zip("ab", "cd", strict=True)) == [("a", "c"), ("b", "d")]
    assert list(python39.strict_zip("ab", "c")) == [("a", "c")]
    with pytest.raises(ValueError, match="different lengths"):
        python39.strict_zip("ab", "c", strict=True)
    assert list(python39.pairwise("abc")) == [("a", "b"), ("b", "c")]

    @python39.dataclass(frozen=True, kw_only=True)
    class Pair:
        first: int = 1
        second: str  # without a default after one with: allowed where all are keywords

        def __post_init__(self) -> None:
            assert self.second

    assert (Pair(second="x").first, Pair(first=2, second="y").second) == (1, "y")
    assert Pair(second="x") == Pair(second="x")
    for wrong in ({}, {"second": "x", "third": 3}):
        with pytest.raises(TypeError):
            Pair(**wrong)
    with pytest.raises(AttributeError):
        Pair(second="x").first = 2  # type: ignore[misc]


def real_python() -> Path | None:
    """A Python 3.9 that runs: pyenv's own first, since its stand-in on the path may refuse."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = [*sorted(pyenv.glob("versions/3.9*/bin/python3.9")), shutil.which("python3.9")]
    for python in filter(None, found):
        told = subprocess.run([python, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True)
        if told.stdout.strip() == b"(3, 9)":
            return Path(python)
    return None


# Compiles every file, then imports what inference may: without site-packages, of which nothing is to be relied upon.
REAL = """
import importlib, sys
from pathlib import Path
repository, ours, rooms = Path(sys.argv[1]), {"TeachFormerCore", *sys.argv[2].split()}, sys.argv[3:]
for file in repository.glob("TeachFormer*/**/*.py"):
    compile(file.read_bytes(), str(file), "exec", dont_inherit=True)
sys.path[:0] = [str(repository), str(repository / "TeachFormerSlicer" / "TeachFormer" / "TeachFormerLib")]
names = ["launch", "runner"]
for room in rooms:
    files = sorted((repository / "TeachFormerCore" / room).glob("*.py"))
    names += [".".join(filter(None, ["TeachFormerCore", room, file.stem])) for file in files if file.stem[:2] != "__"]
for name in names:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        assert error.name.partition(".")[0] not in ours, error
    else:
        print(name)
"""


@pytest.fixture(scope="module")
def real() -> Path:
    python = real_python()
    if python is None:
        pytest.skip("no Python 3.9 here, neither pyenv's nor on the path")
    return python


def test_a_real_3_9_compiles_every_file_and_imports_what_needs_no_package(real: Path) -> None:
    command = [real, "-B", "-I", "-S", "-c", REAL, REPOSITORY, " ".join(sys.stdlib_module_names), *ROOMS]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    needed = ("launch", "TeachFormerCore.inference.worker", "TeachFormerCore.commands.segment")
    assert set(needed) <= set(done.stdout.split())


def test_slicers_command_line_module_says_in_a_real_3_9_what_to_install(real: Path) -> None:
    script = REPOSITORY / "TeachFormerSlicer" / "TeachFormerCLI" / "TeachFormerCLI.py"
    command = [real, "-B", "-I", "-S", script, "--ct", "ct.nrrd", "label.nrrd"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert (done.returncode, done.stderr) == (3, "")
    assert "is not installed: " in done.stdout
