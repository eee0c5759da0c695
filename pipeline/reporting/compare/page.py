"""A comparison as one self-contained page: pictures of both sides inline, no script, no address outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.reporting import page
from pipeline.reporting.compare import MAPPINGS, Comparison, RunComparison, words
from pipeline.reporting.compare.gates import Outcome
from pipeline.reporting.contents import caption_of


@dataclass(frozen=True)
class Pair:
    """The same picture of both sides, PNG; None where a side has none, or where it is the same on both."""

    caption: str
    base: bytes | None
    head: bytes | None


def render(
    comparison: Comparison, outcomes: Sequence[Outcome] = (), flips: Mapping[str, bytes | str] | None = None
) -> str:
    """The HTML of the comparison.

    Args:
        comparison: of two sides.
        outcomes: of the gates.
        flips: by run, the picture of the images that turned, or why there is none.
    """
    from markupsafe import Markup

    listed = [run for run in comparison.runs if not run.is_unchanged]
    return (
        page.environment()
        .get_template("compare/page.html.j2")
        .render(
            comparison=comparison,
            runs=listed,
            outcomes=outcomes,
            words=words,
            pairs={run.title: pairs(run) for run in listed},
            flips=flips or {},
            png=page.data_uri,
            css=Markup((page.HERE / "page.css").read_text(encoding="utf-8")),
        )
    )


def pairs(run: RunComparison) -> list[Pair]:
    """The pictures of both reports that differ."""
    found: dict[str, list[bytes | None]] = {}
    for side, arm in enumerate((run.base, run.head)):
        if arm is None:
            continue
        folder = MAPPINGS[arm.mapping](arm.name) / "pictures"
        for name in arm.revision.names(folder):
            if name.endswith(".png"):
                found.setdefault(name, [None, None])[side] = arm.revision.read(folder / name)
    return [
        Pair(caption_of(name.removesuffix(".png")), *both) for name, both in sorted(found.items()) if both[0] != both[1]
    ]
