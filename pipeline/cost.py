"""`pipeline cost`: what stages cost by the ledger of this clone, and what a commit changed in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from pipeline import git, ledger, paths
from pipeline.errors import ParamsError, PipelineError
from pipeline.ledger import Line


def of_commit(lines: Iterable[Line], history: Sequence[str], committed: float) -> dict[str, Line]:
    """The run of each stage that a commit's results are of.

    A commit holds results that were made with it checked out, or before it was made, on its parent or further back.

    Args:
        lines: of the ledger, oldest first.
        history: the commit and its ancestors, the nearest first.
        committed: when it was made, in seconds since 1970.

    Returns:
        By stage, the last line of the nearest of `history` that has one; stages without any are absent.
    """
    ranks = {commit: rank for rank, commit in enumerate(history)}
    found: dict[str, tuple[int, Line]] = {}
    for line in lines:
        rank = ranks.get(line.commit or "")
        if rank is None or (rank > 0 and line.time > committed):
            continue
        if line.stage not in found or rank <= found[line.stage][0]:
            found[line.stage] = (rank, line)
    return {stage: line for stage, (_, line) in found.items()}


def table(base: str | None, head: str | None) -> Iterator[str]:
    """The lines to print.

    Args:
        base: a revision to compare with, or None to show the last runs alone.
        head: the other one; None: the last runs.

    Raises:
        PipelineError: no ledger here, or nothing in it of a revision.
        ParamsError: an unknown revision.
    """
    lines = list(ledger.read())
    if not lines:
        raise PipelineError(f"{paths.LEDGER}: no runs in this clone yet; fix: python -m pipeline repro")
    last = {line.stage: line for line in lines}
    if base is None:
        return _costs(last)
    before = _at(base, lines)
    return _differences(before, _at(head, lines) if head is not None else last)


def _at(revision: str, lines: Sequence[Line]) -> dict[str, Line]:
    commit = git.commit(revision)
    if commit is None:
        raise ParamsError(f"{revision}: no such commit here; fix: see git log")
    history = git.said("rev-list", commit).decode().split()
    found = of_commit(lines, history, float(git.said("log", "-1", "--format=%ct", commit)))
    if not found:
        raise PipelineError(f"{paths.LEDGER}: no run of {revision} in this clone; fix: git checkout it, then dvc repro")
    return found


def _costs(lines: Mapping[str, Line]) -> Iterator[str]:
    """A table of the stages, the longest first, with their sum and the largest memory."""
    has_gpu = any(line.gpu_seconds for line in lines.values())
    rows = [("stage", "seconds", "memory MB", *(["GPU s"] if has_gpu else []))]
    for line in sorted(lines.values(), key=lambda line: -line.seconds):
        gpu = [f"{line.gpu_seconds:.1f}"] if has_gpu else []
        rows.append((line.stage, f"{line.seconds:.1f}", f"{line.peak_memory_mb:.0f}", *gpu))
    seconds, memory, gpu_seconds = _sums(lines)
    rows.append(("all", f"{seconds:.1f}", f"{memory:.0f}", *([f"{gpu_seconds:.1f}"] if has_gpu else [])))
    return _aligned(rows)


def _differences(before: Mapping[str, Line], after: Mapping[str, Line]) -> Iterator[str]:
    """A table of what changed, the largest change of time first; a stage on one side only has no difference."""
    has_gpu = any(line.gpu_seconds for line in (*before.values(), *after.values()))
    rows = [("stage", "seconds", "", "", "memory MB", "", "", *(["GPU s", "", ""] if has_gpu else []))]

    def change(stage: str) -> float:
        both = stage in before and stage in after
        return abs(after[stage].seconds - before[stage].seconds) if both else float("inf")

    for stage in sorted({*before, *after}, key=lambda stage: (-change(stage), stage)):
        old, new = before.get(stage), after.get(stage)
        gpu = _pair(old and old.gpu_seconds, new and new.gpu_seconds, 1) if has_gpu else []
        seconds = _pair(old and old.seconds, new and new.seconds, 1)
        memory = _pair(old and old.peak_memory_mb, new and new.peak_memory_mb, 0)
        rows.append((stage, *seconds, *memory, *gpu))
    sums = zip(_sums(before), _sums(after), (1, 0, 1), strict=True)
    rows.append(("all", *[cell for pair in list(sums)[: 3 if has_gpu else 2] for cell in _pair(*pair)]))
    return _aligned(rows)


def _sums(lines: Mapping[str, Line]) -> tuple[float, float, float]:
    """Seconds in all, the largest memory, GPU seconds in all."""
    values = lines.values()
    return (
        sum(line.seconds for line in values),
        max((line.peak_memory_mb for line in values), default=0.0),
        sum(line.gpu_seconds for line in values),
    )


def _pair(old: float | None, new: float | None, digits: int) -> list[str]:
    shown = ["-" if value is None else f"{value:.{digits}f}" for value in (old, new)]
    return [*shown, "" if old is None or new is None else f"{new - old:+.{digits}f}"]


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for first, *numbers in rows:
        cells = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
        yield "  ".join([first.ljust(widths[0]), *cells]).rstrip()
