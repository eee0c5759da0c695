"""A YAML file read as DVC reads it (ruamel, YAML 1.2), that knows the line of each of its keys."""

from __future__ import annotations

import math
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ParamsError

if TYPE_CHECKING:
    from ruamel.yaml.nodes import Node

MAX_VALUES = 100_000
"""After aliases are expanded: far above any job, far below what an alias bomb makes."""
MAX_DEPTH = 50

Location = tuple[str | int, ...]
"""The keys and indices that lead to a value."""


class Document:
    """The content of one YAML file, made of mappings with text keys, lists, text, numbers, booleans and null.

    Raises:
        ParamsError: not readable, not YAML, a key twice, a tag, a merge key or marker, a date, NaN or infinity,
            or too many values; names the line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = _read_text(path)
        self.content = self._parse()
        self._check_values()

    def error(self, at: Location, message: str) -> ParamsError:
        """An error that names the file, the line of the value and its keys."""
        return ParamsError(f"{self.path}:{self.line(at)} {_dotted(at)}: {message}")

    def line(self, at: Location) -> int:
        """The line of a key, or of the nearest section around it that the file has."""
        from ruamel.yaml.nodes import MappingNode, SequenceNode

        node = self._tree
        line = 1
        for key in at:
            found = None
            if isinstance(node, MappingNode):
                found = next(((k, v) for k, v in node.value if k.value == str(key)), None)
            elif isinstance(node, SequenceNode) and isinstance(key, int) and key < len(node.value):
                found = (node.value[key], node.value[key])
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        return line

    @cached_property
    def _tree(self) -> Node:
        from ruamel.yaml import YAML

        return YAML(typ="rt").compose(self.text)

    def _parse(self) -> Any:
        from ruamel.yaml import YAML
        from ruamel.yaml.constructor import DuplicateKeyError
        from ruamel.yaml.error import MarkedYAMLError, YAMLError

        for number, line in enumerate(self.text.splitlines(), start=1):
            if re.match(r"(<{7}|>{7}|\|{7})( |$)|={7}$", line):
                raise ParamsError(f"{self.path}:{number}: a merge marker ({line[:7]}); fix: resolve the conflict")
        try:
            if "<<" in self.text:
                self._refuse_merge_keys()
            # pure: its messages and its limit on nesting do not depend on the C parser being there
            return YAML(typ="safe", pure=True).load(self.text)
        except DuplicateKeyError:
            raise self._duplicate() from None
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = f"{self.path}:{mark.line + 1}" if mark else str(self.path)
            problem = " ".join(str(error.problem or error.context).split())
            fix = "correct the YAML there"
            if r"\t" in problem:
                fix = "indent with spaces, not tabs"
            elif "constructor for the tag" in problem:
                fix = "write a plain value; tags are never run"
            raise ParamsError(f"{place}: not valid YAML ({problem}); fix: {fix}") from None
        except (YAMLError, ValueError) as error:
            what = " ".join(str(error).split())
            raise ParamsError(f"{self.path}: not valid YAML ({what}); fix: correct it") from None
        except RecursionError:
            raise ParamsError(f"{self.path}: nested too deeply; fix: write it flat") from None

    def _refuse_merge_keys(self) -> None:
        """Merge keys multiply before they can be counted, and `dvc exp run -S` edits all that share one."""
        from ruamel.yaml import YAML
        from ruamel.yaml.events import ScalarEvent

        for event in YAML(typ="rt").parse(self.text):
            if isinstance(event, ScalarEvent) and event.value == "<<" and not event.style:
                line = event.start_mark.line + 1
                raise ParamsError(
                    f"{self.path}:{line}: a merge key (<<); fix: put shared values under defaults.training"
                )

    def _duplicate(self) -> ParamsError:
        """The first key that stands twice in one mapping, with both lines."""
        from ruamel.yaml.nodes import MappingNode, SequenceNode

        pending: list[tuple[Location, Node]] = [((), self._tree)]
        while pending:
            at, node = pending.pop(0)
            if isinstance(node, MappingNode):
                lines: dict[str, int] = {}
                for key, value in node.value:
                    line = key.start_mark.line + 1
                    if key.value in lines:
                        where = f"{self.path}:{line} {_dotted((*at, key.value))}"
                        return ParamsError(f"{where}: the key stands in line {lines[key.value]} too; fix: keep one")
                    lines[key.value] = line
                    pending.append(((*at, key.value), value))
            elif isinstance(node, SequenceNode):
                pending.extend(((*at, index), value) for index, value in enumerate(node.value))
        return ParamsError(f"{self.path}: a key stands twice; fix: keep one")

    def _check_values(self) -> None:
        pending: list[tuple[Location, Any]] = [((), self.content)]
        count = 0
        while pending:
            at, value = pending.pop()
            count += 1
            if len(at) > MAX_DEPTH:
                raise self.error(at[:1], f"nested more than {MAX_DEPTH} deep; fix: write it flat")
            if count > MAX_VALUES:
                raise self.error(at[:1], f"more than {MAX_VALUES} values once aliases are expanded; fix: write fewer")
            if isinstance(value, dict):
                for key, inner in value.items():
                    if not isinstance(key, str):
                        raise self.error((*at, key), f"a key that is not text ({key!r}); fix: quote it")
                    pending.append(((*at, key), inner))
            elif isinstance(value, list):
                pending.extend(((*at, index), inner) for index, inner in enumerate(value))
            elif isinstance(value, float) and not math.isfinite(value):
                raise self.error(at, f"not a finite number ({value}); fix: write a number")
            elif not isinstance(value, (str, int, float, bool, type(None))):
                raise self.error(at, f"neither text nor a number ({value}); fix: quote it")


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; fix: run in the folder of the project") from None
    except OSError as error:
        raise ParamsError(f"{path}: not readable ({error.strerror}); fix: make it a readable file") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        byte = error.object[error.start]
        raise ParamsError(f"{path}:{line}: not UTF-8 (byte 0x{byte:02x}); fix: save the file as UTF-8") from None


def _dotted(at: Location) -> str:
    return ".".join(str(key) for key in at) or "top level"
