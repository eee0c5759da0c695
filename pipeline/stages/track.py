"""Reads dvc.lock, reports/ and the ledger, writes them to MLflow."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import git, ledger, lock, paths
from pipeline.errors import PipelineError
from pipeline.ledger import Line
from pipeline.reporting.contents import read_metrics, read_training
from pipeline.reporting.scores import kind, kind_of
from pipeline.tracking import Entry, digest, shown_uri, sync, without_credentials

if TYPE_CHECKING:
    from pipeline.params import Params

OWN = "track"
SECTIONS = {  # of params.yaml, by group of dvc.yaml
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
        PipelineError: dvc.lock is absent or not what DVC writes, or SECTIONS lacks one of its groups.
    """
    costs = ledger.last()
    entries = []
    for title, content in lock.read().items():
        stage, _, name = title.partition("@")
        if name and stage not in SECTIONS:
            raise PipelineError(
                f"{paths.LOCK} {title}: of no section of params.yaml that is tracked; fix: add its group to SECTIONS "
                "in pipeline/stages/track.py, or python -m pipeline lint --prune"
            )
        if stage == OWN or (name and name not in getattr(params, SECTIONS[stage])):
            continue
        verb, entry = ledger.verb_and_name(str(content.get("cmd", "")))
        cost = costs.get(ledger.key(verb, entry)) if verb else None
        entries.append(_entry(stage, name or stage, title, content, cost))
    return entries


def _entry(stage: str, name: str, title: str, content: dict[str, Any], cost: Line | None) -> Entry:
    outs = [Path(out["path"]) for out in content.get("outs", [])]
    metrics: dict[str, float | None] = {}
    curves: dict[str, list[tuple[int, float]]] = {}
    for out in outs:
        if out.name == "metrics.json":
            metrics |= read_metrics(out)
        elif out.name == "training.csv":
            curves |= _curves(read_training(out))
    if cost is not None:
        metrics |= {"duration_seconds": cost.seconds, "peak_memory_mb": cost.peak_memory_mb}
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
        seconds=cost.seconds if cost is not None else None,
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
