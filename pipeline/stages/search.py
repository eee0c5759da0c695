"""Searches for the options of a run that do best on its validation split. Reads its inputs; writes reports/searches."""

from __future__ import annotations

import csv
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import paths
from pipeline.errors import ParamsError, did_you_mean
from pipeline.params import Params, Range, Search
from pipeline.training import search as searching
from pipeline.training.search import Report, Trial
from pipeline.training.state import Row, best_epoch, higher_is_better
from pipeline.training.trial import Trials

EDGE = 0.05
"""Share of a range at either end: a best trial there says that better ones may lie outside."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters of a cell that a spreadsheet computes."""


def run(params: Params, name: str) -> None:
    """Makes the trials of one entry of `searches`, or those that a killed search has left."""
    entry = params.searches[name]
    base = Trials(params.runs[entry.run], entry.run, params.defaults)
    fixed = {} if entry.epochs is None else {"training.epochs": entry.epochs}
    for key, tried in entry.space.items():  # what may be drawn is checked before anything is trained
        for value in searching.examples(tried):
            base.check(base.changed(fixed | {key: value}), f"searches.{name}.space.model_params")
    total, place = searching.num_trials(entry), paths.RESUME / "searches" / name

    def attempt(number: int, values: dict[str, Any], report: Report) -> float:
        print(f"search {name}: trial {number + 1} of {total}: {_phrase(values)}", file=sys.stderr)
        changed = base.changed(fixed | values)
        rows: list[Row] = []

        def watch(row: Row) -> None:
            rows.append(row)
            is_last = changed.training is None or row["epoch"] == changed.training.epochs
            report(int(row["epoch"]), _value(row, f"searches.{name}.metric", entry), is_last)

        base.fit(changed, watch, place / str(number))
        keeps_best = changed.training is not None and changed.training.keep == "best"
        kept = best_epoch(rows, changed.training.monitor) if keeps_best and changed.training else len(rows)
        return rows[kept - 1][entry.metric]

    settings = entry.model_dump(exclude={"storage"})
    trials = searching.run(
        entry,
        attempt,
        name=name,
        file=place / f"{base.digest(settings)}.db",
        digest=base.digest(settings, on_all_machines=True),
        seed=params.defaults.seed,
        higher_is_better=higher_is_better(entry.metric),
    )
    for left in place.glob("*/"):  # snapshots of trials that were pruned
        shutil.rmtree(left, ignore_errors=True)
    _write(paths.search_report(name), name, entry, trials)


def _value(row: Row, where: str, entry: Search) -> float:
    if entry.metric in row:
        return row[entry.metric]
    columns = [column for column in row if column.startswith("val_")]
    near = did_you_mean(entry.metric, columns)
    raise ParamsError(f"{paths.PARAMS} {where}: {entry.run} has no column {entry.metric!r} in its log; {near}")


def _phrase(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {json.dumps(value)}" for key, value in values.items())


def _write(folder: Path, name: str, entry: Search, trials: list[Trial]) -> None:
    """The table, the best options, the counts, and the pictures."""
    from pipeline.reporting import landscape

    best = searching.best(trials, name, higher_is_better=higher_is_better(entry.metric))
    _write_table(folder / "trials.csv", entry, trials)
    options = [f"++runs.{entry.run}.{key}={_as_override(value)}" for key, value in best.values.items()]
    counts = {state: sum(trial.state == state for trial in trials) for state in ("complete", "pruned", "diverged")}
    paths.write_json(
        folder / "best.json",
        {
            "run": entry.run,
            "params": best.values,
            "metric": entry.metric,
            "value": _rounded(best.value),
            "trial": best.number,
            "trials": len(trials),
            **counts,
            "options": options,
            "command": " ".join(["dvc exp run", *(f"-S '{option}'" for option in options)]),
        },
    )
    edge = at_edge(entry, best)
    if edge:
        print(f"search: the best trial lies at the edge of {', '.join(edge)}; widen the range there", file=sys.stderr)
    protocol = [
        ["run", entry.run],
        ["method", entry.method],
        ["metric", f"{entry.metric}, on the validation split alone"],
        ["epochs", entry.epochs or "as many as the run"],
        ["pruning", entry.pruning],
        *([f"space: {key}", _space(tried)] for key, tried in entry.space.items()),
        ["best at the edge of", ", ".join(edge) or "nothing"],
    ]
    content: dict[str, Any] = {f"best_{entry.metric}": _rounded(best.value), "trials": len(trials), **counts}
    shares = explained(trials) if entry.method == "grid" else {}
    if shares:
        content["explained"] = [[key, _rounded(share)] for key, share in shares.items()]
    with paths.written_whole(folder / "pictures") as pictures:
        pictures.mkdir()
        landscape.draw(pictures, entry, trials, best)
    paths.write_json(folder / "metrics.json", {**content, "protocol": protocol})


def at_edge(entry: Search, best: Trial) -> list[str]:
    """The keys whose range should be wider: the best value is at the first or last step, or in the outer EDGE of it."""
    found = []
    for key, tried in entry.space.items():
        if isinstance(tried, Range):
            scale = math.log if tried.log else float
            low, high, value = (scale(number) for number in (tried.low, tried.high, best.values[key]))
            share = (value - low) / (high - low)
            near = 0.5 / (tried.steps - 1) if tried.steps is not None else EDGE
            if min(share, 1 - share) < near:
                found.append(key)
    return found


def explained(trials: list[Trial]) -> dict[str, float]:
    """Of a whole grid, the share of the metric's variance that each key explains by itself.

    The variance of the means over all else, over the variance of all (main effects of a balanced design). Empty where
    a trial is not complete, for then the design is not balanced, or where all are equal.
    """
    values = np.array([np.nan if trial.state != "complete" else trial.value for trial in trials], float)
    if not np.isfinite(values).all() or np.ptp(values) == 0:
        return {}
    shares = {}
    for key in trials[0].values:
        texts = np.array([json.dumps(trial.values[key]) for trial in trials])
        means = np.array([values[texts == text].mean() for text in texts])
        shares[key] = float(means.var() / values.var())
    return shares


def _write_table(path: Path, entry: Search, trials: list[Trial]) -> None:
    with paths.written_whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["trial", "state", entry.metric, "epochs", *entry.space])
        for trial in trials:
            value = "" if trial.value is None else f"{trial.value:.6g}"
            table.writerow([trial.number, trial.state, value, trial.epochs, *map(_as_cell, trial.values.values())])


def _as_cell(value: Any) -> str:
    """As text that no spreadsheet computes: an apostrophe goes before words that it would take for a formula."""
    text = _as_text(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(FORMULA) else text


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _as_override(value: Any) -> str:
    """A value as `dvc exp run -S` reads it."""
    return json.dumps(value, separators=(",", ":"))


def _space(tried: Any) -> str:
    """What is tried of one key, in words."""
    content = tried.model_dump()
    if "choices" in content:
        return ", ".join(_as_text(choice) for choice in content["choices"])
    kind = [word for word in ("log", "integer") if content[word]]
    steps = [f"{content['steps']} steps"] if content["steps"] else []
    return ", ".join([f"{content['low']:g} to {content['high']:g}", *kind, *steps])


def _rounded(value: float | None) -> float | None:
    """Six digits: the last ones of float64 differ between machines."""
    return None if value is None else float(f"{value:.6g}")
