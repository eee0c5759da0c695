"""Which params a stage's code reads, by its syntax trees: attributes of values whose types are sections of the schema.

The types come from annotations (`params: Params`, `entry: Run`), from which assignments, loops and subscripts follow.
A value that is handed on to a function is read there; of a subsection (`fit(entry.training)`) all of it counts.
"""

from __future__ import annotations

import ast
import types
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

from pipeline import params as schema
from pipeline.lint.imports import tree
from pipeline.params import Generator, Params, Run, Section

LEARNER = {"learner": (Run, Generator)}  # methods of Params and what they give
PROPERTIES = {"task": "model", "parent": "inputs", "images": "inputs"}  # of entries, and the key that they are made of


class Read(NamedTuple):
    """A part of params.yaml: the class of an entry (or Params), the keys from there on, and where it is read."""

    section: type[Section]
    keys: tuple[str, ...]
    place: str = ""

    def covers(self, other: Read) -> bool:
        """Whether the other is this part or lies in it."""
        return self.section is other.section and other.keys[: len(self.keys)] == self.keys


class _Value(NamedTuple):
    """What is known of an expression: an annotation, and from which entry it was reached (None: unknown)."""

    annotation: Any
    origin: Read | None


def entry_classes() -> dict[str, type[Section]]:
    """The class of the entries of each mapping of params.yaml."""
    hints = typing.get_type_hints(Params)
    found = {}
    for name, hint in hints.items():
        if typing.get_origin(hint) is dict:
            found[name] = typing.get_args(hint)[1]
    return found


def reads(module: str) -> Iterator[Read]:
    """Every part that a file's functions read."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.FunctionDef):
            yield from _Function(module, node).reads()


class _Function:
    """One function under analysis."""

    def __init__(self, module: str, node: ast.FunctionDef) -> None:
        self._module, self._node = module, node
        self._names: dict[str, list[_Value]] = {}
        self._found: list[Read] = []
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        for argument in arguments:
            if argument.annotation is not None:
                self._names[argument.arg] = [
                    _Value(section, Read(section, ()) if _is_root(section) else None)
                    for section in _annotated(argument.annotation)
                ]

    def reads(self) -> list[Read]:
        """All that it reads, in the order of its text."""
        for _ in range(2):  # names may be bound below where they are used, in loops
            self._found = []
            for statement in self._node.body:
                self._visit(statement)
        return self._found

    def _visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            return  # walked by itself, or too small to bind names
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if node.value is not None:
                for target in targets:
                    self._bind(target, node.value)
                self._read(node.value, is_alias=True)
            return
        if isinstance(node, ast.For | ast.comprehension):
            self._bind_loop(node.target, node.iter)
        if isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp):
            for generator in node.generators:
                self._visit(generator)
        if isinstance(node, ast.Attribute | ast.Subscript | ast.Call | ast.Name):
            self._read(node)
            return
        for child in ast.iter_child_nodes(node):
            self._visit(child)

    def _bind(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            found = self._values(value)
            if found:
                self._names[target.id] = found
        elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for inner, each in zip(target.elts, value.elts, strict=False):
                self._bind(inner, each)

    def _bind_loop(self, target: ast.expr, iterable: ast.expr) -> None:
        """`for name, entry in params.runs.items()` and `for entry in params.runs.values()`."""
        if not (isinstance(iterable, ast.Call) and isinstance(iterable.func, ast.Attribute)):
            return
        entries = [value for held in self._values(iterable.func.value) for value in _entries(held)]
        if iterable.func.attr == "items" and isinstance(target, ast.Tuple) and isinstance(target.elts[1], ast.Name):
            self._names[target.elts[1].id] = entries
        elif iterable.func.attr == "values" and isinstance(target, ast.Name):
            self._names[target.id] = entries

    def _read(self, node: ast.expr, is_alias: bool = False) -> None:
        """Notes what an expression reads; one that only gives a part a name reads it where the name is used."""
        values = self._values(node)
        for value in values:
            is_part = value.origin is not None and bool(value.origin.keys)
            if is_part and value.origin is not None and not (is_alias and _is_section(value.annotation)):
                self._found.append(value.origin._replace(place=f"{self._module}:{node.lineno}"))
        for child in ast.iter_child_nodes(node):
            if values and isinstance(node, ast.Attribute) and child is node.value:
                self._below(child)
            else:
                self._visit(child)

    def _below(self, node: ast.AST) -> None:
        """The inside of a chain: its own prefix is no read, what stands in brackets and calls is."""
        if isinstance(node, ast.Attribute | ast.Subscript):
            self._below(node.value)
            if isinstance(node, ast.Subscript):
                self._visit(node.slice)
        elif not isinstance(node, ast.Name):
            for child in ast.iter_child_nodes(node):
                self._visit(child)

    def _values(self, node: ast.expr) -> list[_Value]:
        if isinstance(node, ast.Name):
            return self._names.get(node.id, [])
        if isinstance(node, ast.Attribute):
            return [found for value in self._values(node.value) for found in _attribute(value, node.attr)]
        if isinstance(node, ast.Subscript):
            return [found for value in self._values(node.value) for found in _entries(value)]
        if isinstance(node, ast.IfExp):
            return [*self._values(node.body), *self._values(node.orelse)]
        if isinstance(node, ast.BoolOp):
            return [found for value in node.values for found in self._values(value)]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEARNER:
            is_method = any(value.annotation is Params for value in self._values(node.func.value))
            return [_Value(each, Read(each, ())) for each in LEARNER[node.func.attr] if is_method]
        return []


def _annotated(annotation: ast.expr) -> list[type[Section]]:
    """The sections that an annotation names."""
    names = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(annotation) if isinstance(node, ast.Attribute)}
    found = [getattr(schema, name, None) for name in sorted(names)]
    return [each for each in found if isinstance(each, type) and issubclass(each, Section)]


def _is_root(section: type[Section]) -> bool:
    return section is Params or section in entry_classes().values()


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _entries(value: _Value) -> Iterator[_Value]:
    """What a mapping of params.yaml holds; nothing for other values."""
    if typing.get_origin(value.annotation) is dict:
        inner = typing.get_args(value.annotation)[1]
        for each in _alternatives(inner):
            if _is_section(each):
                yield _Value(each, Read(each, ()) if _is_root(each) else None)


def _attribute(value: _Value, name: str) -> Iterator[_Value]:
    section = value.annotation
    if not _is_section(section):
        return
    if section is Params and name == "learners":
        yield _Value(dict[str, Run | Generator], None)
        return
    name = PROPERTIES.get(name, name)
    if name not in section.model_fields:
        return
    origin = value.origin._replace(keys=(*value.origin.keys, name)) if value.origin is not None else None
    hint = typing.get_type_hints(section)[name]
    if typing.get_origin(hint) is dict and section is Params:
        yield _Value(hint, None)  # a mapping: what is read of it are its entries
        return
    for each in _alternatives(hint):
        yield _Value(each, origin)


def _alternatives(hint: Any) -> list[Any]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [each for each in typing.get_args(hint) if each is not type(None)]
    return [hint]
