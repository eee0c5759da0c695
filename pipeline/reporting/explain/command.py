"""`pipeline explain-metric`: how a number came about, and what other dialects would say of the same predictions."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import paths
from pipeline.errors import ParamsError, did_you_mean
from pipeline.metrics import lookup
from pipeline.params import Generator, Params, Run
from pipeline.reporting.contents import read_json
from pipeline.reporting.explain.parts import Explanation, shown
from pipeline.reporting.scores import figures


def run(params: Params, name: str, metric: str) -> None:
    """Prints what is to be said of one number of a run or a generator.

    Raises:
        ParamsError: no such run or metric.
        PipelineError: the run has no report.
    """
    entry = params.learner(name)
    folder = paths.generator_report(name) if isinstance(entry, Generator) else paths.run_report(name)
    content = read_json(folder / "metrics.json")
    found = figures(content)
    if metric not in found:
        raise ParamsError(f"{name} has no metric {metric!r}; {did_you_mean(metric, found)}")
    reported = found[metric]
    ends = {key: (low, high) for key, low, high in content.get("intervals", [])}.get(metric)
    between = f", 95% interval {ends[0]:.4f} to {ends[1]:.4f}" if ends else ""
    print(f"{metric} of {name}: {shown(reported)}{between}")
    known = lookup(entry.task, metric)
    if known is not None:
        good = {True: "; higher is better", False: "; lower is better", None: ""}[known.higher_is_better]
        print(f"  {known.description}{good}")
    print("\nProtocol")
    for key, value in content["protocol"]:
        print(f"  {key.replace('_', ' ')}: {value}")
    explanation = _explained(entry, name, metric, folder, len(content.get("per_class", [])))
    if explanation.lines:
        print("\nHow it came about")
        print("\n".join(f"  {line}" for line in explanation.lines))
    if explanation.dialects:
        print("\nWhat other dialects say of the same predictions")
        for rule, value in explanation.dialects:
            change = "" if value is None or reported is None else f"{round(value - reported, 4) + 0.0:+.4f}"
            print(f"  {shown(value):>9}  {change:>8}  {rule}")
    if explanation.missing:
        print(f"\n{explanation.missing}")


def _explained(entry: Run | Generator, name: str, metric: str, folder: Path, num_classes: int) -> Explanation:
    if isinstance(entry, Run) and entry.task == "detection":
        from pipeline.reporting.explain import detection

        return detection.explain(entry, name, metric)
    try:
        table = pq.read_table(folder / "per_image.parquet")
    except (OSError, pa.ArrowInvalid):
        return Explanation([], [], f"no {folder / 'per_image.parquet'}: nothing more can be told; fix: git checkout it")
    if entry.task == "segmentation":
        from pipeline.reporting.explain import segmentation

        return segmentation.explain(table, metric)
    if entry.task == "classification":
        from pipeline.reporting.explain import classification

        return classification.explain(table, metric, num_classes)
    return Explanation([], [], "other dialects need other features: see the protocol for those used here")
