"""JSON files as they come: their encoding, what is cut off or doubled in them, and values of a declared type."""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from pipeline.errors import PipelineError

BOM = b"\xef\xbb\xbf"
KEY = re.compile(rb'"\s*:')
NOT_FINITE = re.compile(rb"(?<=[\[,:\s])(-?Infinity|NaN)(?=[\],}\s])")
INVALID = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

Value = TypeVar("Value")


class DuplicateKey(ValueError):
    """An object with a key that stands twice in it."""


def top_level(path: Path, name: str, required: Iterable[str]) -> dict[str, msgspec.Raw]:
    """The values of the object that a JSON file is, each still as text.

    The file is memory-mapped, so that large ones need no memory of their own.

    Args:
        path: the file.
        name: how messages name it.
        required: keys that must be there.

    Raises:
        PipelineError: not UTF-8, not JSON, not an object, a key twice or missing; with the line where it can be told.
    """
    data = _mapped(path, name)
    try:
        content = _object(data)
    except INVALID as error:
        quoted = NOT_FINITE.sub(rb'"\1"', bytes(data))  # so that the annotation that is NaN can be named
        try:
            content = _object(memoryview(quoted))
            data = memoryview(quoted)
        except INVALID:
            raise PipelineError(_place(data, name, error)) from None
    except DuplicateKey as error:
        raise PipelineError(f"{name} {error}: the key stands there twice; fix: keep one") from None
    for key in required:
        if key not in content:
            raise PipelineError(f"{name} {key}: missing; it has {', '.join(content) or 'no keys'}; fix: add `{key}`")
    return content


def decode(raw: msgspec.Raw | bytes, kind: type[Value]) -> Value:
    """A value of the declared type.

    Raises:
        ValueError: it is not of that type, or a key stands twice in it; the message begins with the key.
    """
    try:
        value = msgspec.json.decode(raw, type=kind)
        # keys in text make the two counts differ too, which only costs the slow way
        if len(KEY.findall(raw)) != len(msgspec.json.decode(raw, type=dict[str, msgspec.Raw])):
            _refuse_duplicates(bytes(raw))
    except INVALID as error:
        raise ValueError(explain(error) + _value_at(raw, error)) from None
    return value


def explain(error: Exception) -> str:
    """One of msgspec's messages, beginning with the key that it is about.

    >>> explain(msgspec.ValidationError("Expected `int`, got `str` - at `$.iscrowd`"))
    'iscrowd: should be int, not str'
    >>> explain(msgspec.ValidationError("Object missing required field `image_id`"))
    'image_id: missing'
    """
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 (byte 0x{error.object[error.start]:02x})"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    text, _, at = str(error).partition(" - at `$")
    key = at.rstrip("`").lstrip(".")
    if missing := re.match("Object missing required field `(.*)`", text):
        return f"{'.'.join(filter(None, (key, missing[1])))}: missing"
    if wrong := re.match("Expected `(.*)`, got `(.*)`", text):
        text = f"should be {wrong[1].replace(' | ', ' or ')}, not {wrong[2]}"
    return f"{key}: {text}" if key else text


def _value_at(raw: msgspec.Raw | bytes, error: Exception) -> str:
    """The value that one of msgspec's messages is about, in brackets, or nothing where it is long or unknown."""
    try:
        value = msgspec.json.decode(raw)
        for key, index in re.findall(r"\.(\w+)|\[(\d+)\]", str(error).partition(" - at `$")[2]):
            value = value[key or int(index)]
    except (*INVALID, LookupError, TypeError):
        return ""
    text = repr(value)
    return f" ({text})" if len(text) <= 60 and not isinstance(value, dict) else ""


def _mapped(path: Path, name: str) -> memoryview:
    try:
        with path.open("rb") as file:
            start = file.read(4)
            if not start:
                raise PipelineError(f"{name}: an empty file; fix: fetch or export it anew")
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        raise PipelineError(f"{name}: no such file; fix: name the file of annotations") from None
    except IsADirectoryError:
        raise PipelineError(f"{name}: a folder, not a file; fix: name the file of annotations") from None
    if start[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in start:
        raise PipelineError(f"{name}: UTF-16 or UTF-32, not UTF-8; fix: save the file as UTF-8")
    return data[len(BOM) :] if start.startswith(BOM) else data


def _object(data: memoryview) -> dict[str, msgspec.Raw]:
    """The object's values; a key that stands twice is found by walking from value to value."""
    content = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    position = 0
    step = re.compile(rb'[\s{,]*("(?:[^"\\]|\\.)*")\s*:\s*')
    for key, value in content.items():
        match = step.match(data, position)
        following = json.loads(match[1]) if match else key
        raw = bytes(value) if len(value) < 64 else memoryview(value)
        if match is None or following != key or data[match.end() : match.end() + len(raw)] != raw:
            raise DuplicateKey(following if following in content else key)
        position = match.end() + len(raw)
    if match := step.match(data, position):
        raise DuplicateKey(json.loads(match[1]))
    return content


def _refuse_duplicates(raw: bytes) -> None:
    def unique(pairs: list[tuple[str, Any]]) -> None:
        keys = [key for key, _ in pairs]
        if len(set(keys)) < len(keys):
            double = next(key for key in keys if keys.count(key) > 1)
            raise msgspec.ValidationError(f"the key stands twice - at `$.{double}`")

    json.loads(raw, object_pairs_hook=unique)


def _place(data: memoryview, name: str, error: Exception) -> str:
    """The message of a file that is no JSON object."""
    if isinstance(error, RecursionError):
        return f"{name}: nested too deeply; fix: export the file anew"
    if isinstance(error, UnicodeDecodeError):
        return f"{name}: {explain(error)}; fix: save the file as UTF-8"
    if isinstance(error, msgspec.ValidationError):
        return f"{name}: {explain(error)} at the top; fix: give the file of annotations, not of results"
    text = str(error)
    if "truncated" in text:
        line = bytes(data).count(b"\n") + 1
        return f"{name}:{line}: the file is cut off there; fix: fetch or export it anew"
    byte = re.search(r"\(byte (\d+)\)", text)
    line = bytes(data[: int(byte[1])]).count(b"\n") + 1 if byte else 1
    return f"{name}:{line}: not JSON ({text}); fix: correct it there or export it anew"
