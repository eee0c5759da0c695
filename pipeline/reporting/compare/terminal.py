"""A comparison in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.reporting.compare import Comparison, RunComparison, words
from pipeline.reporting.compare.gates import Outcome

STYLES = {"better": "green", "worse": "red", "differs": "yellow", "not comparable": "yellow", "gone": "red"}


def show(comparison: Comparison, outcomes: Sequence[Outcome], width: int | None = None) -> None:
    """Prints the overview, what changed in each run, and the gates.

    Args:
        comparison: of two sides.
        outcomes: of the gates.
        width: of the lines; None: the terminal's.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(width=width, highlight=False, soft_wrap=False)
    console.print(Text(f"{comparison.base} → {comparison.head}", "bold"))
    console.print(Text(words.counts(comparison)))
    listed = [run for run in comparison.runs if not run.is_unchanged]
    if listed:
        place = words.HEADLINES.index("p")  # it stands in the table of the run
        columns, *rows = [
            [cell for index, cell in enumerate(row) if index != place]
            for row in (words.HEADLINES, *(words.headline_row(run) for run in listed))
        ]
        console.print(_table(columns, rows, [STYLES.get(run.verdict, "") for run in listed]))
    for sentence in words.unchanged(comparison):
        console.print(Text(sentence))
    for run in listed:
        _show_run(console, run)
    for outcome in outcomes:
        mark, style = ("pass", "green") if outcome.passed else ("FAIL", "red")
        console.print(Text(f"gate {mark}: {outcome.run} {outcome.metric}: {outcome.reason}", style))
    console.print(Text(words.footnote(comparison), "dim"))


def _show_run(console: object, run: RunComparison) -> None:
    from rich.console import Console
    from rich.text import Text

    assert isinstance(console, Console)
    console.print()
    console.print(Text(f"{run.title}: {run.verdict}", "bold"))
    if run.params:
        console.print(_table(("param", "base", "head"), words.change_rows(run.params)))
    for sentence in words.reasons(run):
        console.print(Text(sentence))
    if run.unequal:
        console.print(_table(("protocol", "base", "head"), words.change_rows(run.unequal)))
    if seeds := words.seed_rows(run):
        console.print(_table(("over seeds", "base", "head"), seeds))
    if run.differences and run.verdict != "identical":
        rows = [words.metric_row(run.task, one) for one in run.differences]
        console.print(_table(words.HEADLINES[1:], rows, [STYLES.get(one.verdict, "") for one in run.differences]))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str] = ()) -> object:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        is_scores = columns[0] in ("run", "metric")
        is_number = is_scores and column in ("base", "head", "change", "interval", "p")
        whole = is_scores and column not in ("run", "metric")  # numbers are never cut; names may take two lines
        table.add_column(column, justify="right" if is_number else "left", overflow="fold", no_wrap=whole)
    for index, row in enumerate(rows):
        table.add_row(*(Text(cell) for cell in row), style=styles[index] if styles else None)
    return table
