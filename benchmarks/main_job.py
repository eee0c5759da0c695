"""Measures what the main job must reach and keeps it in benchmarks/results/main_job.{json,md}.

Each part can run alone and replaces its own part of the results:

    python benchmarks/main_job.py --cost            seconds and memory of each stage, from a finished clone's ledger
    python benchmarks/main_job.py --no-op           a second `dvc repro` against as many trivial stages
    python benchmarks/main_job.py --start           `python -m pipeline --help` against `python -c 'import typer'`
    python benchmarks/main_job.py --quality         the scores in reports/
    python benchmarks/main_job.py --same --other B  two clones that were run by hand, compared byte by byte
    python benchmarks/main_job.py --two-clones      two fresh clones, run from nothing, compared byte by byte

Without a flag all but the last two run. `dvc` and `python` are those of the interpreter that runs this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BIN = Path(sys.executable).parent
PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")

Figure = dict[str, Any]


def environment() -> dict[str, str]:
    """The environment of a user whose virtual environment is active."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")}
    return {
        **kept,
        "PATH": f"{BIN}{os.pathsep}{kept.get('PATH', '')}",
        "VIRTUAL_ENV": str(BIN.parent),
        "DVC_NO_ANALYTICS": "1",
    }


def call(command: list[str], folder: Path) -> float:
    """Seconds of a command that must succeed."""
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"error: {' '.join(command)} failed: {done.stderr.strip()[-400:]}")
    return seconds


def figure(name: str, measured: float | bool | None, target: float | bool, rule: str, note: str = "") -> Figure:
    """A measured value beside its target; `rule` is <=, >= or ==; a value that is absent does not meet it."""
    met = measured is not None and {"<=": measured <= target, ">=": measured >= target, "==": measured == target}[rule]
    if isinstance(measured, float):
        measured = round(measured, 4)
    return {"name": name, "measured": measured, "target": target, "rule": rule, "met": bool(met), "note": note}


def cost(clone: Path) -> dict[str, Any]:
    """Seconds and memory of every command, from the last lines of a clone's ledger."""
    ledger = clone / "data" / "ledger.jsonl"
    if not ledger.is_file():
        raise SystemExit("error: data/ledger.jsonl: no such file; fix: dvc repro in that clone first")
    last = {}
    for line in ledger.read_text().splitlines():
        content = json.loads(line)
        last[content["command"], content["name"] or ""] = content
    stages = [
        {
            "stage": f"{command}@{name}" if name else command,
            "seconds": round(content["seconds"], 2),
            "peak_memory_mb": round(content["peak_memory_mb"]),
        }
        for (command, name), content in last.items()
    ]
    inside = f"{sum(stage['seconds'] for stage in stages):.0f} s inside stages, which run side by side"
    return {
        "figures": [
            figure("seconds from first start to last end", span(last.values()), 900, "<=", inside),
            figure("peak memory of a stage, MB", max(stage["peak_memory_mb"] for stage in stages), 6144, "<="),
        ],
        "stages": stages,
    }


def span(lines: Iterable[dict[str, Any]]) -> float | None:
    """Seconds between the first start and the last end in a ledger; None where a line has no time."""
    ends = [(line["time"], line["seconds"]) for line in lines if "time" in line]
    return max(end for end, _ in ends) - min(end - seconds for end, seconds in ends) if ends else None


def no_op(rounds: int) -> dict[str, Any]:
    """A `dvc repro` that finds nothing to do, against one over as many trivial stages, by turns."""
    num_stages = len(load_yaml(ROOT / "dvc.lock")["stages"])
    with tempfile.TemporaryDirectory() as scratch:
        trivial = Path(scratch)
        stages = {
            f"stage_{index:03}": {
                "cmd": f"cp input_{index:03}.txt output_{index:03}.txt",
                "deps": [f"input_{index:03}.txt"],
                "outs": [f"output_{index:03}.txt"],
            }
            for index in range(num_stages)
        }
        for index in range(num_stages):
            (trivial / f"input_{index:03}.txt").write_text(f"{index}\n")
        (trivial / "dvc.yaml").write_text(json.dumps({"stages": stages}))
        call(["git", "init", "-q"], trivial)
        call(["dvc", "init", "-q"], trivial)
        call(["dvc", "repro", "-q"], trivial)
        for folder in (ROOT, trivial):
            if not is_settled(folder):
                raise SystemExit("error: dvc repro still has something to run; fix: dvc repro, then measure")
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(call(["dvc", "repro", "-q"], ROOT))
            theirs.append(call(["dvc", "repro", "-q"], trivial))
    ratio = statistics.median(ours) / statistics.median(theirs)
    note = f"medians {statistics.median(ours):.2f} s and {statistics.median(theirs):.2f} s, {num_stages} stages"
    return {"figures": [figure("second repro against trivial stages", ratio, 1.2, "<=", note)]}


def is_settled(folder: Path) -> bool:
    """Whether a repro has nothing to do there."""
    done = subprocess.run(["dvc", "repro", "--dry"], cwd=folder, env=environment(), capture_output=True, text=True)
    return done.returncode == 0 and "Running stage" not in done.stdout


def start(rounds: int) -> dict[str, Any]:
    """The time until help appears, against that of importing typer alone, by turns."""
    python = str(BIN / "python")
    ours, theirs = [], []
    for _ in range(rounds + 1):
        ours.append(call([python, "-m", "pipeline", "--help"], ROOT))
        theirs.append(call([python, "-c", "import typer"], ROOT))
    ours, theirs = ours[1:], theirs[1:]  # the first may write bytecode
    probe = (
        "import sys\nfrom pipeline.cli import main\ncode = main(['--help'])\n"
        "sys.exit(code or ('torch' in sys.modules) * 9)"
    )
    code = subprocess.run([python, "-c", probe], cwd=ROOT, env=environment(), capture_output=True).returncode
    ratio = statistics.median(ours) / statistics.median(theirs)
    note = f"medians {statistics.median(ours):.3f} s and {statistics.median(theirs):.3f} s"
    return {
        "figures": [
            figure("--help against import typer", ratio, 3, "<=", note),
            figure("--help imports no torch", code == 0, True, "=="),
        ]
    }


def quality(clone: Path) -> dict[str, Any]:
    """The scores of the committed reports."""

    def metric(place: str, name: str) -> float | None:
        path = clone / "reports" / place / "metrics.json"
        return json.loads(path.read_text()).get(name) if path.is_file() else None

    def against(value: float | None, foil: float | None, how: Any) -> float | None:
        return None if value is None or not foil else how(value, foil)

    linear, pixels = (metric(f"runs/linear_icons_{space}", "top1") for space in ("lite0", "pixels"))
    miou, background = (metric("runs/unet_scenes", name) for name in ("miou", "miou_background_only"))
    figures = [
        figure("linear probe on features, top1", linear, 0.65, ">=", "icons never seen"),
        figure(
            "linear probe, top1 above the same head on pixels", against(linear, pixels, lambda a, b: a - b), 0.10, ">="
        ),
        figure("ResNet on digits, top1", metric("runs/resnet_digits", "top1"), 0.98, ">="),
        figure("FCOS on scenes, map50", metric("runs/fcos_scenes", "map50"), 0.40, ">="),
        figure(
            "U-Net on scenes, miou over that of background alone",
            against(miou, background, lambda a, b: a / b),
            5,
            ">=",
        ),
    ]
    for name in ("vae_digits", "ddpm_digits"):
        fid, noise = (metric(f"generators/{name}", score) for score in ("fid", "fid_noise"))
        share = against(fid, noise, lambda a, b: a / b)
        figures.append(figure(f"{name}, fid over that of noise", share, round(1 / 3, 4), "<="))
    return {"figures": figures}


def two_clones() -> dict[str, Any]:
    """Two fresh clones of the commit, each run from nothing one after the other, and compared."""
    with tempfile.TemporaryDirectory() as scratch:
        clones, seconds, peaks = [Path(scratch) / name for name in ("first", "other_place")], [], []
        for clone in clones:
            call(["git", "clone", "-q", str(ROOT), str(clone)], Path(scratch))
            if not (clone / ".dvc").is_dir():
                call(["dvc", "init", "-q"], clone)
            for path in (clone / "dvc.lock", clone / "reports"):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            took, peak = watched([str(BIN / "python"), "-m", "pipeline", "repro"], clone)
            seconds.append(took)
            peaks.append(peak)
        settled = is_settled(clones[0])
        again = call(["dvc", "repro", "-q"], clones[0])
        differing = differences(*clones)
        stages = cost(clones[0])["stages"]
    return {
        "figures": [
            figure("fresh clone to finished report, seconds", max(seconds), 900, "<=", "the slower of two"),
            figure(
                "peak memory of the whole job, MB",
                max(peaks),
                6144,
                "<=",
                "proportional sets of the scheduler and its stages, summed",
            ),
            figure("second repro runs nothing", settled, True, "=="),
            figure("two clones, files that differ", len(differing), 0, "<=", ", ".join(differing[:5])),
        ],
        "seconds": [round(took, 1) for took in seconds],
        "second_repro_seconds": round(again, 2),
        "differing": differing,
        "stages": stages,
    }


def same(clone: Path, other: Path) -> dict[str, Any]:
    """Two finished clones, compared."""
    for folder in (clone, other):
        if not is_settled(folder):
            raise SystemExit("error: a clone still has something to run; fix: dvc repro there first")
    differing = differences(clone, other)
    return {
        "figures": [
            figure("two finished clones, files that differ", len(differing), 0, "<=", ", ".join(differing[:5]))
        ],
        "differing": differing,
    }


def watched(command: list[str], folder: Path) -> tuple[float, float]:
    """Seconds, and the peak in MB of the proportional memory of the command with all its children."""
    started, peak, over = time.perf_counter(), [0.0], threading.Event()
    process = subprocess.Popen(command, cwd=folder, env=environment())

    def look() -> None:
        while not over.wait(0.25):
            peak[0] = max(peak[0], family_memory(process.pid))

    watcher = threading.Thread(target=look)
    watcher.start()
    code = process.wait()
    over.set()
    watcher.join()
    if code:
        raise SystemExit(f"error: {' '.join(command)} ended with {code}")
    return time.perf_counter() - started, peak[0]


def family_memory(pid: int) -> float:
    """MB in memory of a process and its descendants, pages that they share counted once (Linux)."""
    parents, total = {}, 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:  # ended meanwhile
            continue
    family = {pid}
    while grown := {child for child, parent in parents.items() if parent in family} - family:
        family |= grown
    for member in family:
        try:
            rollup = Path(f"/proc/{member}/smaps_rollup").read_text()
        except OSError:
            continue
        total += next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
    return total / 1024


def differences(first: Path, second: Path) -> list[str]:
    """Files of dvc.lock and reports/ that are in one clone only, or differ in a byte."""

    def files(clone: Path) -> dict[str, bytes]:
        found = [clone / "dvc.lock", *(path for path in (clone / "reports").rglob("*") if path.is_file())]
        return {str(path.relative_to(clone)): path.read_bytes() for path in found}

    one, other = files(first), files(second)
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def load_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as DVC reads it."""
    from ruamel.yaml import YAML

    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


def machine() -> str:
    """What the figures were measured on, without its name."""
    num_cores = len(os.sched_getaffinity(0))
    gigabytes = os.sysconf("SC_PHYS_PAGES") * PAGE_SIZE / 2**30
    return (
        f"{num_cores} CPU cores, {gigabytes:.0f} GB of memory, Python {platform.python_version()}, {platform.system()}"
    )


def shown(value: float | bool | None) -> str:
    """A value as the table has it."""
    return {True: "yes", False: "no", None: "n/a"}[value] if value is None or isinstance(value, bool) else str(value)


def table(parts: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["# The main job: what it must reach, and what it does", ""]
    lines += ["`python benchmarks/main_job.py` measures and writes this; `--two-clones` for the fresh clones.", ""]
    lines += ["| figure | target | measured | met | note |", "|---|---:|---:|---|---|"]
    for part in parts.values():
        for one in part["figures"]:
            target = "yes" if one["target"] is True else f"{one['rule']} {one['target']}"
            cells = (one["name"], target, shown(one["measured"]), shown(one["met"]), one["note"])
            lines.append(f"| {' | '.join(cells)} |")
    for name, part in parts.items():
        lines += ["", f"`{name}` measured on {part['machine']}."]
    stages = (parts.get("two_clones") or parts.get("cost") or {}).get("stages", [])
    if stages:
        lines += ["", "## Stages", "", "| stage | seconds | peak memory, MB |", "|---|---:|---:|"]
        lines += [f"| {stage['stage']} | {stage['seconds']} | {stage['peak_memory_mb']} |" for stage in stages]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs the parts that were asked for, merges them into the results, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("cost", "no-op", "start", "quality", "same", "two-clones"):
        parser.add_argument(f"--{flag}", action="store_true")
    parser.add_argument("--clone", type=Path, default=ROOT, help="the finished clone that is read")
    parser.add_argument("--other", type=Path, default=ROOT, help="the finished clone that --same compares with it")
    parser.add_argument("--rounds", type=int, default=7, help="repetitions by turns; medians are kept")
    asked = parser.parse_args()
    measures = {
        "two_clones": two_clones,
        "cost": lambda: cost(asked.clone),
        "no_op": lambda: no_op(asked.rounds),
        "start": lambda: start(asked.rounds),
        "quality": lambda: quality(asked.clone),
        "same": lambda: same(asked.clone, asked.other),
    }
    chosen = [name for name in measures if getattr(asked, name)] or [
        name for name in measures if name not in ("same", "two_clones")
    ]
    path = RESULTS / "main_job.json"
    parts = json.loads(path.read_text()) if path.is_file() else {}
    for name in chosen:
        parts[name] = {**measures[name](), "machine": machine()}
    parts = {name: parts[name] for name in measures if name in parts}
    RESULTS.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(parts, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "main_job.md").write_text(table(parts), encoding="utf-8")
    print(table(parts))


if __name__ == "__main__":
    main()
