"""Names of classes from a file beside the data: YOLO's data.yaml and the like, or one name in each line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError

KEYS = ("names", "classes")
MAX_BYTES = 2**20
WHOLE = "write whole numbers from 0 to 255 as keys, or a list"


def read_yaml(path: Path, name: str) -> dict[str, Any]:
    """The mapping that a YAML file is, every scalar as text: a class may be called `no`, `01` or `null`.

    Raises:
        PipelineError: it cannot be read or is no mapping.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        content = YAML(typ="base", pure=True).load(_text(path, name))
    except (YAMLError, RecursionError) as error:
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise PipelineError(f"{name}: not valid YAML ({problem}); fix: correct it") from None
    if not isinstance(content, dict):
        raise PipelineError(f"{name}: not a mapping; fix: write `names:` and a list")
    return content


def read_classes(path: Path, name: str) -> dict[int, str]:
    """The name of each class number that a file gives.

    Args:
        path: a .yaml or .yml file with `names` or `classes`, a list or a mapping of numbers; any other file has one
            name in each line, numbered from 0.
        name: how messages call it.

    Raises:
        PipelineError: it cannot be read, or a name or number stands twice.
    """
    if path.suffix.lower() not in (".yaml", ".yml"):
        return numbered([line.strip() for line in _text(path, name).splitlines() if line.strip()], name)
    content = read_yaml(path, name)
    for key in KEYS:
        if key in content:
            return numbered(content[key], f"{name} {key}")
    raise PipelineError(f"{name}: neither {' nor '.join(KEYS)} in it; fix: write `names:` and a list")


def numbered(names: Any, where: str) -> dict[int, str]:
    """The name of each class number, in the order of the numbers.

    Args:
        names: a list, numbered from 0, or a mapping of numbers, perhaps as text, to names.
        where: the place for messages.

    Raises:
        PipelineError: no names, no text, a name that stands twice, or a number that is none.
    """
    pairs: list[tuple[Any, Any]]
    if isinstance(names, Mapping):
        pairs = list(names.items())
    elif isinstance(names, Sequence) and not isinstance(names, str):
        pairs = list(enumerate(names))
    else:
        raise PipelineError(f"{where}: neither a list nor a mapping ({names!r}); fix: write a list of names")
    result: dict[int, str] = {}
    for key, value in pairs:
        if not isinstance(value, str) or not value.strip():
            raise PipelineError(f"{where}: the name of class {key} is no text ({value!r}); fix: quote it")
        if not str(key).isdecimal():
            raise PipelineError(f"{where}: not a class number ({key!r}); fix: {WHOLE}")
        if value in result.values() or int(key) in result:
            raise PipelineError(f"{where}: {value!r} or its number {key} stands there twice; fix: keep one")
        result[int(key)] = value
    if not result:
        raise PipelineError(f"{where}: names no class; fix: write a list of names")
    return dict(sorted(result.items()))


def _text(path: Path, name: str) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise PipelineError(f"{name}: larger than 1 MiB, so no list of classes; fix: name the right file")
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise PipelineError(f"{name}: no such file; fix: name the file that lists the classes") from None
    except OSError as error:
        raise PipelineError(f"{name}: not readable ({error.strerror}); fix: name a readable file") from None
    except UnicodeDecodeError:
        raise PipelineError(f"{name}: not UTF-8; fix: save the file as UTF-8") from None
