"""Random wrong input for readers: what they may do with it, how long, and how it is made."""

from __future__ import annotations

import copy
import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pipeline.errors import PipelineError

SIZES = [pytest.param(50, id="few"), pytest.param(10_000, id="many", marks=pytest.mark.slow)]
"""Cases of a test: the same few in each fast run, and ten thousand new ones in a slow one."""

SECONDS = 30  # after which a case hangs

Value = TypeVar("Value")


def fuzz(check: Callable[[Any], None], strategy: st.SearchStrategy[Any], cases: int) -> None:
    """Calls `check` with so many values."""

    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        derandomize=cases < 1000,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def one(value: Any) -> None:
        with ending():
            check(value)

    one()


@contextmanager
def ending() -> Iterator[None]:
    """Fails where what is inside takes longer than SECONDS."""

    def hang(*_: object) -> None:
        pytest.fail(f"it hangs: more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, hang)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def answer(function: Callable[..., Value], *arguments: Any, **options: Any) -> Value | None:
    """What a function returns; None where it refuses its input with an error of ours, in one line."""
    try:
        return function(*arguments, **options)
    except PipelineError as error:
        text = str(error)
        assert text
        assert "\n" not in text
        assert "Traceback" not in text
        return None


HOSTILE_TEXT = st.sampled_from(
    [
        "", " ", "0", "-1", "1e309", "nan", "inf", "-inf", "1,5", "0x10", "١", "\ud800", "\0", "\x1b[31m", "\n", "'",
        '"', "<script>", "</script>", "../../etc/passwd", "/etc/passwd", "C:\\x", "~", "$(touch x)", "`x`", "${x}",
        "%s", "{0}", "None", "NA", "on", "=1+1", "é" * 300, "x" * 5000, "a" + "\u0301", "\u202e", "file:///etc/passwd",
    ]
)  # fmt: skip
NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1, 2, 255, 256, 2**31, -(2**31), 2**63, 2**70, 1e-300, 1e300, 0.5, -0.0, 1.5]),
    st.integers(-10, 100),
    st.floats(-100, 100),
)
NOT_FINITE = st.sampled_from([math.nan, math.inf, -math.inf])
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, NOT_FINITE, HOSTILE_TEXT, st.text(max_size=8))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abid_", max_size=4), inner, max_size=3),
    max_leaves=6,
)

Path = tuple[str | int, ...]


def places(content: Any, at: Path = ()) -> Iterator[Path]:
    """The keys and indices that lead to each value of nested lists and dicts."""
    if at:
        yield at
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in inner:
        yield from places(value, (*at, key))


def edited(content: Any) -> st.SearchStrategy[Any]:
    """`content` with one to three of its values replaced, removed, doubled or put under another key."""
    all_places = list(places(content))
    edit = st.tuples(st.sampled_from(all_places), st.sampled_from("rrrrdtk"), VALUES)
    return st.lists(edit, min_size=1, max_size=3).map(lambda edits: _apply(content, edits))


def _apply(content: Any, edits: list[tuple[Path, str, Any]]) -> Any:
    content = copy.deepcopy(content)
    for at, how, value in edits:
        owner = content
        try:
            for key in at[:-1]:
                owner = owner[key]
            last: Any = at[-1]
            old = owner[last]
            if how == "r":
                owner[last] = value
            elif how == "d":
                del owner[last]
            elif isinstance(owner, list):
                owner.append(old if how == "t" else value)
            else:
                owner[str(value)[:20] if how == "k" else "again"] = old
        except (KeyError, IndexError, TypeError, AttributeError):  # an edit before has taken it away
            continue
    return content


def broken(content: bytes) -> st.SearchStrategy[bytes]:
    """Bytes of which some are changed, cut out, doubled or put in."""
    position = st.integers(0, max(0, len(content) - 1))
    edit = st.tuples(position, st.sampled_from("fcixz"), st.binary(min_size=1, max_size=6), st.integers(1, 40))
    return st.lists(edit, min_size=1, max_size=4).map(lambda edits: _break(content, edits))


def _break(content: bytes, edits: list[tuple[int, str, bytes, int]]) -> bytes:
    made = bytearray(content)
    for at, how, new, length in edits:
        at = min(at, len(made))
        if how == "f" and at < len(made):
            made[at] ^= 1 << (length % 8)
        elif how == "c":
            del made[at : at + length]
        elif how == "i":
            made[at:at] = new
        elif how == "x":
            made[at : at + len(new)] = new
        elif how == "z":
            del made[at:]
    return bytes(made)
