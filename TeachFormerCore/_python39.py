"""Lets inference run on Python 3.9, which 3D Slicer 5.8 embeds; no other Python ever loads this file.

The package is written for 3.10 and later. What it uses of that is translated while its modules are imported: unions in
annotations (never evaluated), ``X | None`` and ``isinstance(value, A | B)`` elsewhere, ``zip(strict=...)``,
``dataclass(kw_only=True)`` and ``itertools.pairwise``. Training needs packages that have left 3.9 behind.
"""

import __future__

import ast
import builtins
import dataclasses
import importlib.abc
import importlib.machinery
import itertools
import sys
from collections.abc import Iterator
from typing import Any

PACKAGE = __name__.rpartition(".")[0]


def install() -> None:
    """Has every module of the package translated that is imported from now on."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if not name.startswith(PACKAGE + "."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname: str) -> Any:
        # Never from the cache of compiled files, which holds the untranslated module.
        return self.source_to_code(self.get_data(self.path), self.path)

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> Any:  # type: ignore[override]
        tree = ast.fix_missing_locations(_Translation().visit(ast.parse(data, path)))
        flags = __future__.annotations.compiler_flag
        return compile(tree, path, "exec", flags=flags, dont_inherit=True, optimize=_optimize)

    def exec_module(self, module: Any) -> None:
        module.zip = strict_zip  # found before the builtin
        super().exec_module(module)


class _Translation(ast.NodeTransformer):
    """What 3.9 cannot do, said in its words."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> Any:
        here = {"dataclasses": "dataclass", "itertools": "pairwise"}.get(node.module or "", "")
        names = [alias.name for alias in node.names]
        if node.level or here not in names:
            return node
        rest = [alias for alias in node.names if alias.name != here]
        made = [ast.ImportFrom(module=__name__, names=[ast.alias(name=here)], level=0)]
        if rest:
            made.append(ast.ImportFrom(module=node.module, names=rest, level=0))
        return [ast.copy_location(each, node) for each in made]

    def visit_BinOp(self, node: ast.BinOp) -> Any:
        self.generic_visit(node)
        nothing = isinstance(node.right, ast.Constant) and node.right.value is None
        return node.left if isinstance(node.op, ast.BitOr) and nothing else node

    def visit_Call(self, node: ast.Call) -> Any:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            kinds = list(_operands(node.args[1]))
            if len(kinds) > 1:
                node.args[1] = ast.copy_location(ast.Tuple(elts=kinds, ctx=ast.Load()), node.args[1])
        return node


def _operands(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        yield from _operands(node.left)
        yield from _operands(node.right)
    else:
        yield node


def strict_zip(*iterables: Any, strict: bool = False) -> Iterator[tuple[Any, ...]]:
    """``zip`` with ``strict``."""
    if not strict:
        return builtins.zip(*iterables)  # noqa: B905
    missing = object()
    rows = list(itertools.zip_longest(*iterables, fillvalue=missing))
    if any(value is missing for row in rows for value in row):
        raise ValueError("zip() arguments have different lengths")
    return iter(rows)


def pairwise(iterable: Any) -> Iterator[tuple[Any, Any]]:
    """``itertools.pairwise``."""
    values = list(iterable)
    return builtins.zip(values, values[1:])  # noqa: B905


def dataclass(cls: Any = None, *, kw_only: bool = False, **options: Any) -> Any:
    """``dataclasses.dataclass`` with ``kw_only``."""

    def wrap(kind: Any) -> Any:
        if not kw_only:
            return dataclasses.dataclass(**options)(kind)
        made = dataclasses.dataclass(init=False, **options)(kind)

        def __init__(self: Any, **values: Any) -> None:  # noqa: N807
            for field in dataclasses.fields(made):
                if field.name in values:
                    value = values.pop(field.name)
                elif field.default is not dataclasses.MISSING:
                    value = field.default
                elif field.default_factory is not dataclasses.MISSING:
                    value = field.default_factory()
                else:
                    raise TypeError(f"{made.__name__} needs {field.name}")
                object.__setattr__(self, field.name, value)
            if values:
                raise TypeError(f"{made.__name__} has no {', '.join(values)}")
            if hasattr(self, "__post_init__"):
                self.__post_init__()

        made.__init__ = __init__
        return made

    return wrap if cls is None else wrap(cls)
