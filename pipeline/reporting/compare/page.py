"""A comparison as one self-contained page: curves and pictures of both sides inline, no script, no address outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.reporting import curves, page
from pipeline.reporting.compare import MAPPINGS, Comparison, RunComparison, words
from pipeline.reporting.compare.gates import Outcome
from pipeline.reporting.contents import caption_of, training_columns
from pipeline.reporting.scores import score


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
            overlaid={run.title: overlaid(run) for run in listed},
            pairs={run.title: pairs(run) for run in listed},
            flips=flips or {},
            png=page.data_uri,
            css=Markup((page.HERE / "page.css").read_text(encoding="utf-8")),
        )
    )


def overlaid(run: RunComparison) -> list[tuple[str, str]]:
    """Captions and SVGs of the training curves of both sides over each other; none where they are the same.

    Raises:
        PipelineError: a side's training.csv is not what `train` writes.
    """
    sides: dict[str, dict[str, list[float]]] = {}
    models = []
    for label, arm in (("base", run.base), ("head", run.head)):
        path = MAPPINGS[arm.mapping](arm.name) / "training.csv" if arm else None
        data = arm.revision.read(path) if arm and path else None
        if arm is None or data is None:
            return []
        models.append(str(arm.entry.get("model")))
        sides[label] = training_columns(data.decode("utf-8", errors="replace"), f"{path} of {arm.revision.name}")
    if sides["base"] == sides["head"]:
        return []
    unit = curves.shared_unit(zip(models, sides.values(), strict=True))
    return [
        (f"{_begun(score(run.task, quantity).label)} by {unit}", svg)
        for quantity in curves.quantities(sides["head"])
        if (svg := curves.overlay(f"{quantity} of {run.title} by {unit}", quantity, sides, x_label=unit))
    ]


def _begun(label: str) -> str:
    """A score as a sentence begins with it; names such as mIoU stay as they are."""
    return label.capitalize() if label.islower() else label


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
