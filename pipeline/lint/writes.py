"""Which places a stage's code writes, by its text: those of `pipeline/paths.py` that reach a writing function."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pipeline import paths
from pipeline.lint.imports import PROJECT, tree

ANY = "*"  # stands for an entry's name and for what is not known
WRITERS = ("written_whole", "write_json")  # of pipeline/paths.py; the path is their first argument


class _Path(NamedTuple):
    """A path in a function: below one of the function's own parameters, or (None) in the project."""

    parameter: int | None
    parts: tuple[str, ...]


def writes(module: str) -> set[str]:
    """The places that a file's functions write, such as `reports/runs/*/metrics.json`."""
    return {"/".join(path.parts) for name in _functions(module) for path in _written(module, name)}


def mentions(module: str) -> set[str]:
    """The places that a file names, to read or to write."""
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "paths":
            found.add(_place(node.attr))
    return {place for place in found if place is not None}


@cache
def _place(name: str) -> str | None:
    """What a function or constant of `pipeline/paths.py` stands for; None for those that are no place."""
    value = getattr(paths, name, None)
    if isinstance(value, Path):
        return str(value)
    if name in (*WRITERS, "of_seed", "export") or not callable(value):
        return None
    return str(value(ANY))


@cache
def _functions(module: str) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in tree(module).body if isinstance(node, ast.FunctionDef)}


def _written(module: str, name: str) -> Iterator[_Path]:
    """The places in the project that a function writes."""
    yield from (path for path in _reached(module, name) if path.parameter is None)


@cache
def _reached(module: str, name: str) -> frozenset[_Path]:
    """All paths in a function that reach a writing one, there or in a function of the package that it calls."""
    function = _functions(module)[name]
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    known: dict[str, list[_Path]] = {each: [_Path(index, ())] for index, each in enumerate(names)}
    found: set[_Path] = set()
    for node in _in_order(function):
        if isinstance(node, ast.Assign):
            targets, values = node.targets[0], node.value
            pairs = (
                zip(targets.elts, values.elts, strict=False)
                if isinstance(targets, ast.Tuple) and isinstance(values, ast.Tuple)
                else [(targets, values)]
            )
            for target, value in pairs:
                if isinstance(target, ast.Name) and (paths_of := _paths(value, known)):
                    known[target.id] = paths_of
        elif isinstance(node, ast.withitem) and isinstance(node.optional_vars, ast.Name):
            known.pop(node.optional_vars.id, None)  # a temporary name of what is written whole
        elif isinstance(node, ast.Call):
            for index, argument in enumerate(node.args):
                for path in _paths(argument, known):
                    found |= {
                        _Path(path.parameter, (*path.parts, *below)) for below in _below(module, node.func, index)
                    }
    return frozenset(found)


def _in_order(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """The nodes as they stand in the text."""
    nodes = [node for node in ast.walk(function) if node is not function]
    yield from sorted(
        nodes, key=lambda node: getattr(node, "lineno", getattr(getattr(node, "context_expr", None), "lineno", 0))
    )


def _below(module: str, function: ast.expr, index: int) -> Iterator[tuple[str, ...]]:
    """What a called function writes below its argument of that position."""
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "paths":
        if function.attr in WRITERS and index == 0:
            yield ()
        return
    if isinstance(function, ast.Name):
        target = (module, function.id) if function.id in _functions(module) else _imported(module).get(function.id)
        if target is not None and target[1] in _functions(target[0]):
            for path in _reached(*target):
                if path.parameter == index:
                    yield path.parts


@cache
def _imported(module: str) -> dict[str, tuple[str, str]]:
    """Functions that a file takes from others of the package by name."""
    found = {}
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("pipeline."):
            file = f"{str(node.module).replace('.', '/')}.py"
            if (PROJECT / file).is_file():
                found.update({alias.asname or alias.name: (file, alias.name) for alias in node.names})
    return found


def _paths(node: ast.expr, known: dict[str, list[_Path]]) -> list[_Path]:
    if isinstance(node, ast.Name):
        return known.get(node.id, [])
    if isinstance(node, ast.IfExp):
        return [*_paths(node.body, known), *_paths(node.orelse, known)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        last = str(node.right.value) if isinstance(node.right, ast.Constant) else ANY
        return [_Path(path.parameter, (*path.parts, last)) for path in _paths(node.left, known)]
    inner = node.func if isinstance(node, ast.Call) else node
    if isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name) and inner.value.id == "paths":
        if inner.attr == "of_seed" and isinstance(node, ast.Call):
            return [_Path(path.parameter, (*path.parts, ANY)) for path in _paths(node.args[0], known)]
        place = _place(inner.attr)
        return [_Path(None, tuple(place.split("/")))] if place is not None else []
    return []
