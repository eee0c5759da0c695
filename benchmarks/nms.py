"""How fast greedy suppression is beside torchvision's, with the same boxes kept; results in benchmarks/results/nms.*.

`python benchmarks/nms.py [--rounds 5]`: both take turns on the same boxes in one process with one thread; seconds of
the processor, medians over the rounds, the first turn of each left out (it compiles or loads). That the kept boxes and
their order are equal, class by class, is checked on every set of boxes.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
sys.path.insert(0, str(ROOT))

from pipeline.ops.nms import nms, nms_per_class  # noqa: E402

IOU = 0.5
GOALS = {(10_000, 1): 20, (50_000, 1): 40, (300_000, 80): 20}
"""How many times as fast as torchvision, by number of boxes and of classes."""
SHAPES = {
    "scattered": "sides of 10 to 110 pixels anywhere in 1000 x 1000",
    "all sizes": "sides of 4 to 400 pixels, evenly by magnitude, anywhere in 1000 x 1000",
    "clustered": "twenty boxes about each of many objects, as a detector gives them",
}


def boxes_of(shape: str, num: int, rng: np.random.Generator) -> np.ndarray:
    """[N, 4] float32 xyxy."""
    if shape == "clustered":
        num_objects = num // 20
        corners = rng.uniform(0, 1000, (num_objects, 2))
        sizes = np.exp(rng.uniform(np.log(10), np.log(300), (num_objects, 2)))
        owner = rng.integers(0, num_objects, num)
        corner = corners[owner] + rng.normal(0, 0.15, (num, 2)) * sizes[owner]
        size = sizes[owner] * np.exp(rng.normal(0, 0.15, (num, 2)))
    else:
        corner = rng.uniform(0, 1000, (num, 2))
        size = (
            rng.uniform(10, 110, (num, 2))
            if shape == "scattered"
            else np.exp(rng.uniform(np.log(4), np.log(400), (num, 2)))
        )
    return np.concatenate([corner, corner + size], 1).astype(np.float32)


def measure(shape: str, num: int, num_classes: int, rounds: int) -> dict[str, Any]:
    """Seconds of both on one set of boxes."""
    import torch
    from torchvision.ops import batched_nms
    from torchvision.ops import nms as torchvision_nms

    rng = np.random.default_rng(num)
    boxes, scores = boxes_of(shape, num, rng), rng.random(num).astype(np.float32)
    labels = rng.integers(0, num_classes, num)
    tensors = torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(labels)
    contestants: dict[str, Callable[[], Any]] = {
        "ours": lambda: nms(boxes, scores, IOU) if num_classes == 1 else nms_per_class(boxes, scores, labels, IOU),
        "torchvision": lambda: torchvision_nms(*tensors[:2], IOU) if num_classes == 1 else batched_nms(*tensors, IOU),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    kept: dict[str, np.ndarray] = {}
    for turn in range(rounds + 1):
        for name, call in contestants.items():
            start = time.process_time()
            result = call()
            if turn:
                seconds[name].append(time.process_time() - start)
            kept[name] = np.asarray(result)
    # batched_nms orders equal scores as it happens, so the order is held against a call for each class
    equal = np.array_equal(*(np.sort(found) for found in kept.values()))
    for label in range(num_classes):
        members = np.flatnonzero(labels == label)
        alone = members[torchvision_nms(tensors[0][members], tensors[1][members], IOU).numpy()]
        equal &= np.array_equal(kept["ours"][labels[kept["ours"]] == label], alone)
    median = {name: statistics.median(of) for name, of in seconds.items()}
    ratio = median["torchvision"] / median["ours"]
    goal = GOALS[num, num_classes]
    return {
        "boxes": num,
        "classes": num_classes,
        "shape": shape,
        "kept": len(kept["ours"]),
        "equal": bool(equal),
        "milliseconds": {name: round(1000 * value, 2) for name, value in median.items()},
        "times_as_fast": round(ratio, 1),
        "goal": goal,
        "met": bool(equal and ratio >= goal),
    }


def markdown(content: dict[str, Any]) -> str:
    """The results as a table."""
    lines = [
        "# Suppression",
        f"IoU {IOU}, {content['rounds']} rounds, one thread, seconds of the processor; {content['where']}.",
        *(f"{name.capitalize()}: {words}." for name, words in SHAPES.items()),
        "",
        "| boxes | classes | shape | kept | same as torchvision | ours, ms | torchvision, ms | times as fast | goal |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in content["rows"]:
        spent, met = row["milliseconds"], "met" if row["met"] else "missed"
        lines.append(
            f"| {row['boxes']:,} | {row['classes']} | {row['shape']} | {row['kept']:,} | "
            f"{'yes' if row['equal'] else 'no'} | {spent['ours']} | {spent['torchvision']} | "
            f"{row['times_as_fast']} | {row['goal']}, {met} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures and keeps the results."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    packages = ", ".join(f"{name} {version(name)}" for name in ("torchvision", "torch", "numba", "numpy"))
    rows = []
    for num, num_classes in GOALS:
        for shape in SHAPES:
            rows.append(measure(shape, num, num_classes, rounds))
            print(rows[-1])
    where = f"Python {platform.python_version()}, {packages}, {platform.machine()}"
    content = {"rounds": rounds, "where": where, "rows": rows}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "nms.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "nms.md").write_text(markdown(content), encoding="utf-8")


if __name__ == "__main__":
    main()
