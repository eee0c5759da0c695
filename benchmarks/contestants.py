"""One engine on one workload in a process of its own: prints seconds, peak memory and figures as JSON.

python benchmarks/contestants.py ENGINE KIND FOLDER [REPEATS]
"""

from __future__ import annotations

import contextlib
import io
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.peak import peak_mb

Run = Callable[[Path, str], tuple[float, list[float]]]
"""From a folder with truth.json and results.json and a kind: seconds of evaluation alone, and the figures."""
IOU_TYPES = {"boxes": "bbox", "masks": "segm", "keypoints": "keypoints"}


def pycocotools(folder: Path, kind: str) -> tuple[float, list[float]]:
    """The reference."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return _coco_like(COCO, COCOeval, "loadRes", folder, kind)


def faster_coco_eval(folder: Path, kind: str) -> tuple[float, list[float]]:
    """C++ behind pycocotools' interface."""
    from faster_coco_eval import COCO, COCOeval_faster

    return _coco_like(COCO, COCOeval_faster, "loadRes", folder, kind)


def hotcoco(folder: Path, kind: str) -> tuple[float, list[float]]:
    """Rust."""
    from hotcoco import COCO, COCOeval

    return _coco_like(COCO, COCOeval, "load_res", folder, kind)


def ultrafast_pycocotools(folder: Path, kind: str) -> tuple[float, list[float]]:
    """Rust."""
    from ultrafast_pycocotools import COCO, COCOeval

    return _coco_like(COCO, COCOeval, "loadRes", folder, kind)


def _coco_like(coco: type, evaluator: type, load: str, folder: Path, kind: str) -> tuple[float, list[float]]:
    truth = coco(str(folder / "truth.json"))
    found = getattr(truth, load)(str(folder / "results.json"))
    started = time.perf_counter()
    evaluation = evaluator(truth, found, IOU_TYPES[kind])
    evaluation.evaluate()
    evaluation.accumulate()
    seconds = time.perf_counter() - started
    evaluation.summarize()
    return seconds, [float(value) for value in evaluation.stats]


def torchmetrics(folder: Path, kind: str) -> tuple[float, list[float]]:
    """Over torchmetrics: pycocotools."""
    return _torchmetrics(folder, "pycocotools")


def torchmetrics_faster(folder: Path, kind: str) -> tuple[float, list[float]]:
    """Over torchmetrics: faster-coco-eval."""
    return _torchmetrics(folder, "faster_coco_eval")


def _torchmetrics(folder: Path, backend: str) -> tuple[float, list[float]]:
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(box_format="xywh", backend=backend)
    shown, truth = metric.coco_to_tm(
        str(folder / "results.json"), str(folder / "truth.json"), iou_type="bbox", backend=backend
    )
    started = time.perf_counter()
    metric.update(shown, truth)
    values = metric.compute()
    names = ["map", "map_50", "map_75", "map_small", "map_medium", "map_large"]
    names += ["mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large"]
    return time.perf_counter() - started, [float(values[name]) for name in names]


def ours(folder: Path, kind: str) -> tuple[float, list[float]]:
    """This engine in NumPy alone."""
    return _ours(folder, kind, compiled=False)


def ours_compiled(folder: Path, kind: str) -> tuple[float, list[float]]:
    """This engine with numba."""
    from pipeline.metrics import compiled  # noqa: F401 - from then on files are scanned by compiled code too

    return _ours(folder, kind, compiled=True)


def _ours(folder: Path, kind: str, *, compiled: bool) -> tuple[float, list[float]]:
    from pipeline.metrics.coco_files import read_results, read_truth
    from pipeline.metrics.detection import evaluate_detections

    truth = read_truth(folder / "truth.json", kind)
    found = read_results(folder / "results.json", truth, kind)
    started = time.perf_counter()
    result = evaluate_detections(
        predictions=found,
        targets=truth.columns,
        num_classes=len(truth.classes),
        num_images=len(truth.image_ids),
        kind=kind,
        compiled=compiled,
    )
    seconds = time.perf_counter() - started
    return seconds, [-1.0 if value is None else value for value in result.metrics.values()]


ENGINES: dict[str, Run] = {
    "pycocotools": pycocotools,
    "torchmetrics": torchmetrics,
    "torchmetrics_faster": torchmetrics_faster,
    "faster_coco_eval": faster_coco_eval,
    "hotcoco": hotcoco,
    "ultrafast_pycocotools": ultrafast_pycocotools,
    "ours": ours,
    "ours_compiled": ours_compiled,
}


def measure(run: Run, folder: Path, kind: str, repeats: int) -> dict[str, object]:
    """Seconds of the first call with its imports, peak memory after it, and the medians of the calls that follow."""
    seconds, evaluations, cpu, peak, figures = [], [], [], 0.0, [0.0]
    for _ in range(1 + repeats):
        started, used = time.perf_counter(), time.process_time()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            evaluation, figures = run(folder, kind)
        seconds.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
        evaluations.append(evaluation)
        peak = peak or peak_mb()
    return {
        "cold": seconds[0],
        "cold_evaluation": evaluations[0],
        "warm": statistics.median(seconds[1:] or seconds),
        "warm_evaluation": statistics.median(evaluations[1:] or evaluations),
        "cold_cpu": cpu[0],
        "warm_cpu": statistics.median(cpu[1:] or cpu),
        "peak_mb": peak,
        "figures": figures,
    }


if __name__ == "__main__":
    engine, kind, folder, *rest = sys.argv[1:]
    print(json.dumps(measure(ENGINES[engine], Path(folder), kind, int(rest[0]) if rest else 0)))
