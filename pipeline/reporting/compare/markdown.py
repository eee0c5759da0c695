"""A comparison as a comment under a pull request: Markdown, below the length that GitHub takes."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.reporting.compare import Comparison, RunComparison, words
from pipeline.reporting.compare.gates import Outcome
from pipeline.reporting.summary import table, text

MARKER = "<!-- pipeline compare -->"
"""The first line, by which a later comment finds the one that it replaces."""
MAX_CHARACTERS = 65_536
SHOWN_PICTURES = ("predictions", "samples", "pr_curves", "confusion")


def render(comparison: Comparison, outcomes: Sequence[Outcome] = (), link: str | None = None) -> str:
    """The Markdown.

    Args:
        comparison: of two sides.
        outcomes: of the gates.
        link: address of a file of a commit with {commit} and {path} in it; with it pictures of both sides are linked.

    Returns:
        At most 65,536 characters: runs whose details do not fit are named in the last line.
    """
    listed = [run for run in comparison.runs if not run.is_unchanged]
    head = [MARKER, f"## {text(comparison.base)} → {text(comparison.head)}", "", f"**{words.counts(comparison)}**", ""]
    if outcomes:
        failed = sum(not outcome.passed for outcome in outcomes)
        head += [
            f"**{failed} of {len(outcomes)} gates failed**" if failed else f"**All {len(outcomes)} gates passed**",
            "",
        ]
        rows = [["✅" if o.passed else "❌", text(o.run), text(o.metric), text(o.reason)] for o in outcomes]
        head += [*table(["", "run", "metric", "why"], rows, num_text=4), ""]
    if listed:
        rows = [[text(cell) for cell in words.headline_row(run)] for run in listed]
        head += [*table(list(words.HEADLINES), rows, num_text=2), ""]
    for sentence in words.unchanged(comparison):
        head += [text(sentence), ""]
    tail = ["", f"<sub>{text(words.footnote(comparison))}</sub>", ""]
    details = [_details(run, link) for run in listed]
    return _fitted(head, details, [run.title for run in listed], tail)


def _fitted(head: list[str], details: list[list[str]], titles: list[str], tail: list[str]) -> str:
    """Head and tail with as many details as fit; the head alone is cut where even it does not."""
    for number in range(len(details), -1, -1):
        left_out = titles[number:]
        note = ["", f"Details left out for length: {text(', '.join(left_out))}."] if left_out else []
        content = "\n".join([*head, *(line for block in details[:number] for line in block), *note, *tail])
        if len(content) <= MAX_CHARACTERS:
            return content
    lines, cut = "", "\n\nCut for length; the whole is in the page.\n"
    for line in head:
        if len(lines) + len(line) + 1 + len(cut) > MAX_CHARACTERS:
            break
        lines += f"{line}\n"
    return lines + cut


def _details(run: RunComparison, link: str | None) -> list[str]:
    """What is known of one run, folded."""
    lines = [f"<details><summary><b>{text(run.title)}</b>: {text(run.verdict)}</summary>", ""]
    if run.params:
        rows = [[text(cell) for cell in row] for row in words.change_rows(run.params)]
        lines += [*table(["param", "base", "head"], rows, num_text=3), ""]
    for sentence in words.reasons(run):
        lines += [text(sentence), ""]
    if run.unequal:
        rows = [[text(cell) for cell in row] for row in words.change_rows(run.unequal)]
        lines += [*table(["protocol", "base", "head"], rows, num_text=3), ""]
    if run.differences:
        rows = [[text(cell) for cell in words.metric_row(run.task, one)] for one in run.differences]
        lines += [*table(list(words.HEADLINES[1:]), rows, num_text=1), ""]
    if seeds := words.seed_rows(run):
        rows = [[text(cell) for cell in row] for row in seeds]
        lines += [*table(["over seeds", "base", "head"], rows, num_text=1), ""]
    lines += _pictures(run, link)
    return [*lines, "</details>", ""]


def _pictures(run: RunComparison, link: str | None) -> list[str]:
    """Both sides' pictures next to each other, where their files have an address."""
    from urllib.parse import quote

    from pipeline.reporting.compare import MAPPINGS

    arms = [arm for arm in (run.base, run.head) if arm is not None and arm.revision.commit]
    if link is None or len(arms) < 2:
        return []
    lines = []
    for stem in SHOWN_PICTURES:
        places = []
        for arm in arms:
            folder = MAPPINGS[arm.mapping](arm.name) / "pictures"
            if f"{stem}.png" in arm.revision.names(folder):
                path = quote((folder / f"{stem}.png").as_posix())
                places.append(f"![{stem}]({link.format(commit=arm.revision.commit, path=path)})")
        if len(places) == 2:
            lines += [*table(["base", "head"], [places], num_text=2), ""]
    return lines
