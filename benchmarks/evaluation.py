"""Measures the evaluation engine beside others and keeps it in benchmarks/results/evaluation.{json,md}.

Each part can run alone and replaces its own part of the results:

    python benchmarks/evaluation.py --boxes       5,000 images, from JSON to twelve figures, seven other engines
    python benchmarks/evaluation.py --masks       1,000 images, as run lengths
    python benchmarks/evaluation.py --keypoints   5,000 images
    python benchmarks/evaluation.py --table       from the pipeline's own prediction table, others from JSON
    python benchmarks/evaluation.py --bootstrap   1,000 resamples, of one model and of two
    python benchmarks/evaluation.py --memory      20,000 images
    python benchmarks/evaluation.py --equality    random sets against pycocotools, value by value

Without a flag all run. Every engine runs in a fresh process, by turns; medians are kept. "Cold" is the first run of a
process with its imports, "warm" the median of those that follow. A ratio is of two medians of one part.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import workloads  # noqa: E402 - found beside this file

Figure = dict[str, Any]
OTHERS = ("pycocotools", "faster_coco_eval", "hotcoco", "ultrafast_pycocotools")
OURS = ("ours", "ours_compiled")
TORCHMETRICS = ("torchmetrics", "torchmetrics_faster")
REPEATS = 5


def figure(name: str, measured: float, target: float | None, rule: str = ">=", note: str = "") -> Figure:
    """A measured value beside its target, where it has one."""
    met = None if target is None else bool({"<=": measured <= target, ">=": measured >= target}[rule])
    measured = float(f"{measured:.4g}")
    return {"name": name, "measured": measured, "target": target, "rule": rule, "met": met, "note": note}


def child(script: str, *arguments: object) -> dict[str, Any]:
    """What a fresh process of a script in this folder prints."""
    command = [sys.executable, str(ROOT / "benchmarks" / script), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(command)} failed: {done.stderr.strip()[-400:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def repeats(name: str, kind: str) -> int:
    """Warm runs of each process; none of an engine that takes 40 seconds on the boxes: its runs are all cold."""
    if name in TORCHMETRICS or (name, kind) == ("pycocotools", "boxes"):
        return 0
    return 1 if name == "pycocotools" else REPEATS


def race(folder: Path, kind: str, engines: Sequence[str], rounds: int) -> dict[str, dict[str, Any]]:
    """Every engine by turns: medians of its rounds; the most a figure differs from pycocotools'."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in engines}
    child("contestants.py", "ours_compiled", kind, folder, 0)  # compiles, where nothing is kept compiled yet
    for turn in range(rounds):
        for name in engines:
            if name in TORCHMETRICS and turn:
                continue
            runs[name].append(child("contestants.py", name, kind, folder, repeats(name, kind)))
            print(f"{kind} {name}: {runs[name][-1]['cold']:.2f} s, then {runs[name][-1]['warm']:.3f}", file=sys.stderr)
    keys = ("cold", "cold_evaluation", "warm", "warm_evaluation", "cold_cpu", "warm_cpu", "peak_mb")
    found = {name: {key: statistics.median(run[key] for run in some) for key in keys} for name, some in runs.items()}
    for name, some in runs.items():
        pairs = zip(some[0]["figures"], runs["pycocotools"][0]["figures"], strict=True)
        found[name]["largest_difference"] = max(abs(a - b) for a, b in pairs)
    return found


def raced(kind: str, num_images: int, engines: Sequence[str], rounds: int) -> dict[str, dict[str, Any]]:
    """A race on a workload that is drawn and written for it."""
    with tempfile.TemporaryDirectory() as scratch:
        workloads.write(Path(scratch), kind, num_images)
        return race(Path(scratch), kind, engines, rounds)


def most_different(kind: str, engines: dict[str, dict[str, Any]]) -> Figure:
    """Of our engines, in NumPy alone and compiled, the one that differs the most."""
    difference = max(engines[name]["largest_difference"] for name in OURS)
    return figure(f"{kind}, largest difference to pycocotools", difference, 0, "<=")


def seconds(engines: dict[str, dict[str, Any]], name: str, key: str = "warm") -> float:
    """A median of an engine."""
    return float(engines[name][key])


def boxes(rounds: int) -> dict[str, Any]:
    """From JSON to the twelve figures."""
    engines = raced("boxes", 5000, (*OTHERS, *OURS, *TORCHMETRICS), rounds)
    theirs = seconds(engines, "pycocotools", "cold")
    warm = seconds(engines, "ours_compiled")
    return {
        "figures": [
            figure(
                "boxes, JSON to figures, cold, NumPy alone: pycocotools / ours",
                theirs / seconds(engines, "ours", "cold"),
                35,
            ),
            figure("boxes, JSON to figures, numba: pycocotools cold / ours warm", theirs / warm, 120),
            figure("boxes, JSON to figures, warm, numba: hotcoco / ours", seconds(engines, "hotcoco") / warm, 2),
            most_different("boxes", engines),
        ],
        "engines": engines,
    }


def masks(rounds: int) -> dict[str, Any]:
    """Masks as run lengths on both sides."""
    engines = raced("masks", 1000, (*OTHERS, *OURS), rounds)
    return _against_two("masks", engines, 25)


def keypoints(rounds: int) -> dict[str, Any]:
    """Persons of 17 keypoints."""
    engines = raced("keypoints", 5000, (*OTHERS, *OURS), rounds)
    return _against_two("keypoints", engines, 30)


def _against_two(kind: str, engines: dict[str, dict[str, Any]], target: float) -> dict[str, Any]:
    theirs, warm = seconds(engines, "pycocotools"), seconds(engines, "ours_compiled")
    cold = seconds(engines, "pycocotools", "cold") / seconds(engines, "ours", "cold")
    return {
        "figures": [
            figure(
                f"{kind}, warm, numba: pycocotools / ours", theirs / warm, target, note=f"cold, NumPy alone: {cold:.3g}"
            ),
            figure(f"{kind}, warm, numba: hotcoco / ours", seconds(engines, "hotcoco") / warm, 1),
            most_different(kind, engines),
        ],
        "engines": engines,
    }


def table(rounds: int) -> dict[str, Any]:
    """From the pipeline's own tables of predictions and truth in memory; the others begin at JSON files.

    That is what each needs to judge a run, and the files are no part of ours. Beside it the others' evaluation alone.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        workloads.write(folder, "boxes", 5000)
        rows = []
        for _ in range(rounds):
            runs = {
                name: child("contestants.py", name, "boxes", folder, repeats(name, "boxes"))
                for name in ("pycocotools", "hotcoco")
            }
            runs["ours"] = child("evaluation_parts.py", "table", REPEATS)
            rows.append(runs)
    medians = {name: statistics.median(run[name]["warm"] for run in rows) for name in rows[0]}
    alone = {
        name: statistics.median(run[name]["warm_evaluation"] for run in rows) for name in ("pycocotools", "hotcoco")
    }
    took = "seconds: " + ", ".join(f"{name} {value:.3g}" for name, value in medians.items())
    took_alone = "seconds: " + ", ".join(f"{name} {value:.3g}" for name, value in alone.items())
    own = "own prediction table to figures, warm"
    figures = [
        figure(f"{own}: pycocotools from JSON, cold / ours", medians["pycocotools"] / medians["ours"], 200, note=took),
        figure(f"{own}: hotcoco from JSON, warm / ours", medians["hotcoco"] / medians["ours"], 4),
        figure(f"{own}: pycocotools' evaluation alone / ours", alone["pycocotools"] / medians["ours"], None),
        figure(f"{own}: hotcoco's evaluation alone / ours", alone["hotcoco"] / medians["ours"], None, note=took_alone),
    ]
    return {"figures": figures, "seconds": medians, "seconds_of_evaluation_alone": alone}


def bootstrap(rounds: int) -> dict[str, Any]:
    """1,000 resamples of a per-image table of 5,000 images beside one evaluation by pycocotools from JSON, cold.

    Brute force on few images says that they give the right error.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        workloads.write(folder, "boxes", 5000)
        theirs, ours = [], []
        for _ in range(rounds):
            theirs.append(child("contestants.py", "pycocotools", "boxes", folder, 0)["cold"])
            ours.append(child("evaluation_parts.py", "bootstrap", 3))
    one = statistics.median(theirs)
    took = {key: statistics.median(run[key] for run in ours) for key in ("map", "two", "all")}
    brute = child("evaluation_parts.py", "brute", 0)
    note = f"{took['map']:.3g} s; of all twelve figures {took['all']:.3g} s"
    return {
        "figures": [
            figure(
                "interval of map, 1,000 resamples, warm: one evaluation by pycocotools from JSON, cold / ours",
                one / took["map"],
                25,
                note=note,
            ),
            figure(
                "two models paired, 1,000 resamples, warm: one evaluation by pycocotools from JSON, cold / ours",
                one / took["two"],
                15,
                note=f"{took['two']:.3g} s",
            ),
            figure(
                "standard error of map against brute force, relative difference",
                brute["relative"],
                0.03,
                "<=",
                brute["note"],
            ),
        ],
        "seconds": {"pycocotools": one, **took},
    }


def memory(rounds: int) -> dict[str, Any]:
    """The peak of a process that goes from JSON to figures."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        workloads.write(folder, "boxes", 20_000)
        peaks = {name: child("contestants.py", name, "boxes", folder, 0)["peak_mb"] for name in (*OURS, "hotcoco")}
    note = ", ".join(f"{name} {value:.0f}" for name, value in peaks.items())
    return {
        "figures": [figure("peak memory of 20,000 images, MB", max(peaks[name] for name in OURS), 900, "<=", note)],
        "peak_mb": peaks,
    }


def equality(rounds: int) -> dict[str, Any]:
    """The three arrays and all figures of random sets, 3,333 for each round, boxes, masks and keypoints by turns."""
    found = child("evaluation_parts.py", "equality", 3333 * rounds + 1)
    note = f"{found['values']} values of {found['sets']} sets, mean map {found['mean_map']:.2f}"
    return {"figures": [figure("values that differ from pycocotools", found["differing"], 0, "<=", note)]}


def machine() -> str:
    """What the figures were measured on, without its name."""
    gigabytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    cores = len(os.sched_getaffinity(0))
    return f"{cores} CPU cores, {gigabytes:.0f} GB of memory, Python {platform.python_version()}"


def markdown(parts: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["# The evaluation engine: what it must reach, and what it does", ""]
    lines += ["`python benchmarks/evaluation.py` measures and writes this.", ""]
    lines += ["| figure | target | measured | met | note |", "|---|---:|---:|---|---|"]
    for part in parts.values():
        for one in part["figures"]:
            target = "" if one["target"] is None else f"{one['rule']} {one['target']}"
            met = {True: "yes", False: "no", None: ""}[one["met"]]
            cells = (one["name"], target, one["measured"], met, one["note"])
            lines.append(f"| {' | '.join(map(str, cells))} |")
    for name, part in parts.items():
        if "engines" not in part:
            continue
        lines += [
            "",
            f"## {name}",
            "",
            "| engine | cold, s | of it evaluation | warm, s | of it evaluation | CPU s | peak, MB | difference |",
            "|---|---:|---:|---:|---:|---:|---:|---:|",
        ]
        for engine, row in part["engines"].items():
            keys = ("warm", "warm_evaluation", "warm_cpu")
            warm = [f"{row[key]:.3g}" if repeats(engine, name) else "" for key in keys]
            cells = (
                engine,
                f"{row['cold']:.3g}",
                f"{row['cold_evaluation']:.3g}",
                *warm,
                f"{row['peak_mb']:.0f}",
                f"{row['largest_difference']:.1g}",
            )
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"`{name}` measured on {part['machine']}." for name, part in parts.items())]
    return "\n".join(lines) + "\n"


PARTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "boxes": boxes,
    "masks": masks,
    "keypoints": keypoints,
    "table": table,
    "bootstrap": bootstrap,
    "memory": memory,
    "equality": equality,
}
"""What can be measured, by flag: each gives figures, and what else should be kept."""


def main() -> None:
    """Runs the parts that were asked for, merges them into the results, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in PARTS:
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every engine; medians are kept")
    asked = parser.parse_args()
    path = RESULTS / "evaluation.json"
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in [name for name in PARTS if getattr(asked, name)] or list(PARTS):
        part = {**PARTS[name](asked.rounds), "machine": machine()}
        parts = json.loads(path.read_text()) if path.is_file() else {}
        parts[name] = part
        parts = {name: parts[name] for name in PARTS if name in parts}
        path.write_text(json.dumps(parts, indent=1) + "\n", encoding="utf-8")
        (RESULTS / "evaluation.md").write_text(markdown(parts), encoding="utf-8")
    print(markdown(json.loads(path.read_text())))


if __name__ == "__main__":
    main()
