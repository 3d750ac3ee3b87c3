"""The translation for Python 3.9 (Slicer 5.8), tried on the Python that is here: what 3.9 lacks is taken away first.

No Python 3.9 is at hand where the tests run, so this proves the translation and not the interpreter.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import TeachFormerCore._python39 as python39

REPOSITORY = Path(__file__).parents[1]
CORE = REPOSITORY / "TeachFormerCore"

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


@pytest.mark.parametrize("room", ["", "data", "inference", "networks", "commands"])
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
