"""`pipeline score`: reads truth and predictions, judges them, writes and prints what comes out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal, get_args

from pipeline import paths
from pipeline.errors import ParamsError, PipelineError, did_you_mean
from pipeline.reporting.scoring import results, truth
from pipeline.reporting.scoring.detection import Judged, judge
from pipeline.reporting.scoring.results import Found, Kind
from pipeline.reporting.scoring.truth import Format, Truth
from pipeline.reporting.verdicts import Verdict

Task = Literal["detection", "instance", "keypoints", "semantic", "panoptic", "classification", "captions"]
KINDS: dict[str, Kind] = {"detection": "boxes", "instance": "masks", "keypoints": "keypoints"}
NUM_WORST = 5


def run(
    truth_path: Path,
    predictions: Path,
    task: str,
    *,
    form: str | None = None,
    images: Path | None = None,
    classes: Path | None = None,
    one_based: bool = False,
    out: Path | None = None,
) -> None:
    """Scores predictions.

    Args:
        truth_path: a file or folder of truth.
        predictions: a file or folder of predictions.
        task: one of `Task`.
        form: coco, voc or yolo; None: as the truth looks.
        images: folder of images: sizes for YOLO, pictures for the others.
        classes: a file that names the classes.
        one_based: whether VOC's pixels count from 1, as in the devkit's own files.
        out: folder to write to; None: print alone.

    Raises:
        ParamsError, PipelineError: an option or a file is wrong.
    """
    if task not in get_args(Task):
        raise ParamsError(f"--task {task!r}: no such task; {did_you_mean(task, get_args(Task))}")
    for option, path in (("--truth", truth_path), ("--predictions", predictions), ("--images", images)):
        if path is not None and not path.exists():
            raise ParamsError(f"{option} {path}: no such file or folder; fix: correct it")
    _check_out(out, (truth_path, predictions, images))
    worst: list[tuple[str, int]] = []
    if task in KINDS:
        judged = _objects(truth_path, predictions, KINDS[task], form, images, classes, one_based)
        for line in judged.warnings:
            print(f"warning: {line}", file=sys.stderr)
        verdict, worst = judged.verdict, judged.worst
    else:
        if form is not None:
            raise ParamsError(f"--format {form}: only for detection, instance and keypoints; fix: leave it out")
        verdict = _others(truth_path, predictions, task, images, classes)
    if not verdict.per_image.num_rows:
        raise PipelineError(f"--truth {truth_path}: no image to score; fix: name truth that has images")
    if out is not None:
        verdict_to(out, verdict)
    _show(verdict, worst, out)


def verdict_to(folder: Path, verdict: Verdict) -> None:
    """Writes metrics.json, per_image.parquet and pictures, each whole or not at all."""
    import pyarrow.parquet as pq

    with paths.written_whole(folder / "pictures") as temporary:
        temporary.mkdir()
        verdict.draw(temporary)
    with paths.written_whole(folder / "per_image.parquet") as temporary:
        pq.write_table(verdict.per_image, temporary, compression="zstd")
    paths.write_json(folder / "metrics.json", verdict.to_json())


def _objects(
    truth_path: Path,
    predictions: Path,
    kind: Kind,
    form: str | None,
    images: Path | None,
    classes: Path | None,
    one_based: bool,
) -> Judged:
    form = form or _format_of(truth_path)
    known = _truth(truth_path, form, kind, images, classes, one_based)
    return judge(predictions.name, known, _found(predictions, known, form, kind, one_based), kind)


def _format_of(path: Path) -> Format:
    if path.is_file():
        return "coco" if path.suffix.lower() == ".json" else "voc"
    for form, suffix in (("voc", ".xml"), ("yolo", ".txt")):
        if next(path.rglob(f"*{suffix}"), None) is not None:
            return form  # type: ignore[return-value]
    raise ParamsError(f"--truth {path}: neither a JSON nor a folder of .xml or .txt files; fix: name the truth")


def _truth(path: Path, form: str, kind: Kind, images: Path | None, classes: Path | None, one_based: bool) -> Truth:
    if form == "coco":
        return truth.read_coco(path, kind, images)
    if form == "voc":
        return truth.read_voc(path, kind, images, one_based)
    if form == "yolo":
        return truth.read_yolo(path, kind, images, classes)
    raise ParamsError(f"--format {form!r}: no such format; {did_you_mean(form, get_args(Format))}")


def _found(path: Path, known: Truth, form: str, kind: Kind, one_based: bool) -> Found:
    if path.is_file():
        return results.read_coco(
            path, kind, positions=known.positions, labels=known.labels, num_keypoints=len(known.keypoints)
        )
    if kind != "boxes":
        raise ParamsError(f"--predictions {path}: {kind} are read from COCO's results alone; fix: name a JSON file")
    if form == "voc":
        return results.read_voc(path, positions=known.positions, classes=known.labels, one_based=one_based)
    if form == "yolo":
        return results.read_yolo(path, positions=known.positions, sizes=known.sizes, numbers=known.labels)
    raise ParamsError(f"--predictions {path}: a folder, where COCO's results are one JSON file; fix: name the file")


def _others(truth_path: Path, predictions: Path, task: str, images: Path | None, classes: Path | None) -> Verdict:
    """The verdict of the tasks that runs have too, with intervals."""
    from pipeline.metrics import captioning, classification, panoptic, segmentation
    from pipeline.reporting.scoring import maps, tables
    from pipeline.reporting.scoring import panoptic as panoptic_maps

    if task == "semantic":
        verdict = maps.semantic(truth_path, predictions, classes, images)
        verdict.add_intervals(segmentation.resampled, None)
    elif task == "panoptic":
        verdict = panoptic_maps.panoptic(truth_path, predictions)
        verdict.add_intervals(panoptic.resampled, None)
    elif task == "classification":
        verdict = tables.classification(truth_path, predictions, classes, images)
        verdict.add_intervals(classification.resampled, None)
    else:
        verdict = tables.captions(truth_path, predictions)
        verdict.add_intervals(captioning.resampled, None)
    verdict.protocol[:0] = [("task", task), ("num_images", verdict.per_image.num_rows)]
    return verdict


def _check_out(out: Path | None, inputs: tuple[Path | None, ...]) -> None:
    if out is None:
        return
    for path in inputs:
        if path is not None and path.resolve() in (out.resolve(), *out.resolve().parents):
            raise ParamsError(f"--out {out}: lies in what is read ({path}); fix: name another folder")
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / "metrics.json").is_file()):
        raise ParamsError(f"--out {out}: exists and is no earlier score; fix: name another folder")


def _show(verdict: Verdict, worst: list[tuple[str, int]], out: Path | None) -> None:
    intervals = {name: (low, high) for name, low, high in verdict.intervals}
    width = max(len(name) for name in verdict.metrics)
    for name, value in verdict.metrics.items():
        low, high = intervals.get(name, (None, None))
        between = f"   {low:.4f} to {high:.4f}" if low is not None and high is not None else ""
        print(f"{name:<{width}}  {'undefined' if value is None else format(value, '.4f')}{between}")
    for name, *values in verdict.tables.get("error_types", []):
        number, gain = values
        shown = "undefined" if gain is None else f"{gain:+.4f}"
        print(f"  {name.replace('_', ' '):<16} {'' if number is None else number:>7}   AP to be gained {shown}")
    if worst:
        named = ", ".join(f"{name} ({number})" for name, number in worst[:NUM_WORST])
        print(f"most mistakes: {named}")
    if out is not None:
        print(f"written to {out}")
