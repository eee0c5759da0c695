"""Reads dvc.lock, reports/ and the ledger, writes them to MLflow."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import git, lock, paths
from pipeline.errors import PipelineError
from pipeline.reporting.contents import read_metrics, read_training
from pipeline.reporting.scores import kind, kind_of
from pipeline.tracking import Entry, digest, shown_uri, sync, without_credentials

if TYPE_CHECKING:
    from pipeline.params import Params

OWN = "track"
SECTIONS = {
    "download": "datasets",
    "augment": "augmentations",
    "extract": "features",
    "train": "runs",
    "predict": "runs",
    "evaluate": "runs",
    "train_generator": "generators",
    "sample": "generators",
    "evaluate_generator": "generators",
    "corrupt": "robustness",
    "search": "searches",
    "visualise": "visualisations",
}


def run(params: Params) -> None:
    """Syncs the present state; what fails there is a warning, or an error where tracking is required.

    Raises:
        PipelineError: dvc.lock or a report is broken, or tracking is required and not possible.
    """
    tracking = params.tracking
    entries = read_entries(params)
    try:
        synced = sync(
            entries,
            uri=tracking.uri,
            experiment=tracking.experiment,
            timeout=tracking.timeout,
            commit=git.commit(),
            summary=_summary(params),
        )
    except Exception as error:  # a tracking server must not cost finished work, whatever it does
        reason = without_credentials(str(error), tracking.uri)[:300]
        message = (
            f"{paths.PARAMS} tracking.uri: MLflow is not up to date ({shown_uri(tracking.uri)}: "
            f"{type(error).__name__}: {reason}); fix: python -m pipeline track when it answers"
        )
        if tracking.required:
            raise PipelineError(message) from None
        print(f"warning: {message}", file=sys.stderr)
        return
    print(f"MLflow: {synced.written} new, {synced.known} known in {shown_uri(tracking.uri)}", file=sys.stderr)


def read_entries(params: Params) -> list[Entry]:
    """One entry per stage of dvc.lock that params.yaml still names, but for this stage itself.

    Raises:
        PipelineError: dvc.lock is absent or not what DVC writes.
    """
    ledger = read_ledger()
    entries = []
    for title, content in lock.read().items():
        stage, _, name = title.partition("@")
        if stage == OWN or (name and name not in getattr(params, SECTIONS.get(stage, ""), {})):
            continue
        entries.append(_entry(stage, name or stage, title, content, ledger))
    return entries


def _entry(
    stage: str, name: str, title: str, content: dict[str, Any], ledger: dict[tuple[str, str | None], Any]
) -> Entry:
    cost = ledger.get(_command(content.get("cmd", "")), {})
    outs = [Path(out["path"]) for out in content.get("outs", [])]
    metrics: dict[str, float | None] = {}
    curves: dict[str, list[tuple[int, float]]] = {}
    for out in outs:
        if out.name == "metrics.json":
            metrics |= read_metrics(out)
        elif out.name == "training.csv":
            curves |= _curves(read_training(out))
    metrics |= {
        known: cost[there]
        for known, there in (("duration_seconds", "seconds"), ("peak_memory_mb", "peak_memory_mb"))
        if there in cost
    }
    return Entry(
        stage=stage,
        name=name,
        digest=digest([title, content]),
        params={
            dotted: value
            for values in content.get("params", {}).values()
            for key, inner in values.items()
            for dotted, value in _flat(key, inner)
        },
        metrics=metrics,
        curves=curves,
        pictures=[out / "pictures" if (out / "pictures").is_dir() else out for out in outs if _shows(out)],
        seconds=cost.get("seconds"),
    )


def _shows(out: Path) -> bool:
    """Whether an output is a folder of the report with pictures in it."""
    return out.is_relative_to(paths.REPORTS) and out.is_dir()


def _curves(columns: dict[str, list[float]]) -> dict[str, list[tuple[int, float]]]:
    epochs = [int(epoch) for epoch in columns.get("epoch", [])]
    return {
        name: list(zip(epochs, values, strict=True)) for name, values in columns.items() if name != "epoch" and epochs
    }


def _flat(key: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        return [pair for inner, content in value.items() for pair in _flat(f"{key}.{inner}", content)]
    return [(key, value)]


def _command(line: str) -> tuple[str, str | None]:
    """The verb and the name in a stage's command, as the ledger has them."""
    words = [word for word in shlex.split(line) if not word.startswith("-")]
    after = words[words.index("pipeline") + 1 :] if "pipeline" in words else []
    return (after[0] if after else "", after[1] if len(after) > 1 else None)


def read_ledger() -> dict[tuple[str, str | None], dict[str, Any]]:
    """The last line of each command and name; a line cut off by a kill is passed over."""
    last = {}
    lines = paths.LEDGER.read_text(encoding="utf-8").splitlines() if paths.LEDGER.is_file() else []
    for line in lines:
        try:
            content = json.loads(line)
            last[content["command"], content["name"]] = content
        except (ValueError, KeyError, TypeError):
            continue
    return last


def _summary(params: Params) -> dict[str, float | None]:
    """The main metric of every run and generator, by which states compare."""
    reports = {name: paths.run_report(name) for name in params.runs}
    reports |= {name: paths.generator_report(name) for name in params.generators}
    summary = {}
    for name, folder in reports.items():
        main = kind(kind_of(params.learner(name).model)).main
        if (folder / "metrics.json").is_file():
            summary[f"{name}/{main}"] = read_metrics(folder / "metrics.json").get(main)
    return summary
