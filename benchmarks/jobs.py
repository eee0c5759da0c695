"""Measures `pipeline repro` against `dvc repro` and keeps it in benchmarks/results/jobs.{json,md}.

Each part can run alone and replaces its own part of the results:

    python benchmarks/jobs.py --overhead     40 trivial stages: with one job, and with nothing to do
    python benchmarks/jobs.py --small        a part of the default params, run from nothing by both and compared
    python benchmarks/jobs.py --default      the default params, likewise (about half an hour on two cores)

Without a flag the first two run. `--threads N` sets `defaults.threads` for the second and third.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from main_job import BIN, ROOT, call, differences, figure, is_settled, load_yaml, machine, shown

RESULTS = ROOT / "benchmarks" / "results"
PYTHON = str(BIN / "python")
REPRO = [PYTHON, "-m", "pipeline", "repro"]
NUM_STAGES = 40
SMALL = {  # entries of the default params that --small keeps
    "datasets": ("digits", "openmoji_icons"),
    "augmentations": ("digits_moved",),
    "features": ("icons_lite0", "icons_pixels", "digits_lite0"),
    "generators": ("vae_digits",),
    "visualisations": ("tsne_icons_lite0", "pca_icons_pixels"),
    "robustness": (),
    "searches": (),
    "contrasts": ("transfer",),
}
SMALL_RUNS = ("icons_lite0", "icons_pixels", "resnet_digits")  # ends of names


def trivial(folder: Path) -> None:
    """A project of trivial stages that is run by both."""
    stages = {}
    for index in range(NUM_STAGES):
        source, out = f"input_{index:02}.txt", f"output_{index:02}.txt"
        stages[f"stage_{index:02}"] = {"cmd": f"cp {source} {out}", "deps": [source], "outs": [out]}
        (folder / source).write_text(f"{index}\n")
    (folder / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    shutil.copy(ROOT / "params.yaml", folder)
    call(["git", "init", "-q"], folder)
    call(["dvc", "init", "-q"], folder)


def overhead(rounds: int) -> dict[str, Any]:
    """Both over trivial stages, by turns: from nothing with one job, and with nothing to do."""
    start = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pipeline.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    run = [PYTHON, "-c", start, "repro"]  # as `python -m pipeline repro`, from another folder
    seconds: dict[str, list[float]] = {"dvc": [], "ours": [], "dvc_no_op": [], "ours_no_op": []}
    locks = []
    with tempfile.TemporaryDirectory() as scratch:
        trivial(Path(scratch))
        for _ in range(rounds):
            for name, command in (("dvc", ["dvc", "repro", "-q"]), ("ours", [*run, "--jobs", "1"])):
                for path in (*Path(scratch).glob("output_*"), Path(scratch) / "dvc.lock"):
                    path.unlink(missing_ok=True)
                shutil.rmtree(Path(scratch) / ".dvc/cache", ignore_errors=True)
                seconds[name].append(call(command, Path(scratch)))
                locks.append((Path(scratch) / "dvc.lock").read_bytes())
            for _ in range(2):
                seconds["dvc_no_op"].append(call(["dvc", "repro", "-q"], Path(scratch)))
                seconds["ours_no_op"].append(call(run, Path(scratch)))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    figures = []
    for title, one, other in (
        (f"{NUM_STAGES} trivial stages, one job, over dvc repro", "ours", "dvc"),
        ("nothing to do, over dvc repro", "ours_no_op", "dvc_no_op"),
    ):
        note = f"medians {medians[one]:.2f} s and {medians[other]:.2f} s"
        figures.append(figure(title, medians[one] / medians[other], 1.1, "<=", note))
    figures.append(figure("the same dvc.lock", len(set(locks)) == 1, True, "=="))
    return {"figures": figures, "seconds": seconds}


def against(small: bool, threads: int | None) -> dict[str, Any]:
    """Two fresh clones, one run by `dvc repro`, one by `pipeline repro`, compared byte by byte."""
    with tempfile.TemporaryDirectory() as scratch:
        clones = {name: Path(scratch) / name for name in ("serial", "parallel")}
        took = {}
        for clone in clones.values():  # both before anything runs, for somebody may commit in between
            call(["git", "clone", "-q", str(ROOT), str(clone)], Path(scratch))
        for name, clone in clones.items():
            for path in (clone / "dvc.lock", clone / "reports"):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            edit(clone / "params.yaml", small, threads)
            took[name] = call(["dvc", "repro", "-q"] if name == "serial" else REPRO, clone)
        differing = differences(*clones.values())
        settled = is_settled(clones["parallel"])
        computes_with = load_yaml(clones["serial"] / "params.yaml")["defaults"]["threads"]
        num_stages = len(load_yaml(clones["serial"] / "dvc.lock")["stages"])
    note = f"{took['serial']:.0f} s and {took['parallel']:.0f} s, {num_stages} stages, threads: {computes_with}"
    return {
        "figures": [
            figure("dvc repro over pipeline repro, seconds", took["serial"] / took["parallel"], 1.4, ">=", note),
            figure("files that differ", len(differing), 0, "<=", ", ".join(differing[:5])),
            figure("dvc repro afterwards runs nothing", settled, True, "=="),
        ],
        "seconds": took,
    }


def edit(path: Path, small: bool, threads: int | None) -> None:
    """Leaves the small part of the params, and sets the threads."""
    from ruamel.yaml import YAML

    yaml = YAML()
    params = yaml.load(path)
    if threads:
        params["defaults"]["threads"] = threads
    if small:
        for mapping, names in SMALL.items():
            if mapping in params:
                params[mapping] = {name: params[mapping][name] for name in names}
        params["runs"] = {name: run for name, run in params["runs"].items() if name.endswith(SMALL_RUNS)}
        params["runs"]["resnet_digits"]["training"]["epochs"] = 1
        params["generators"]["vae_digits"]["training"]["epochs"] = 10
    yaml.dump(params, path)


def table(parts: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["# `pipeline repro` against `dvc repro`", "", "`python benchmarks/jobs.py` measures and writes this.", ""]
    lines += ["| part | figure | target | measured | met | note |", "|---|---|---:|---:|---|---|"]
    for name, part in parts.items():
        for one in part["figures"]:
            target = "yes" if one["target"] is True else f"{one['rule']} {one['target']}"
            cells = (name, one["name"], target, shown(one["measured"]), shown(one["met"]), one["note"])
            lines.append(f"| {' | '.join(cells)} |")
    for name, part in parts.items():
        lines += ["", f"`{name}` measured on {part['machine']}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs the parts that were asked for, merges them into the results, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("overhead", "small", "default"):
        parser.add_argument(f"--{flag}", action="store_true")
    parser.add_argument("--threads", type=int, help="defaults.threads of both clones")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions by turns; medians are kept")
    asked = parser.parse_args()
    wanted = [name for name in ("overhead", "small", "default") if getattr(asked, name)] or ["overhead", "small"]
    path = RESULTS / "jobs.json"
    parts = json.loads(path.read_text()) if path.is_file() else {}
    for name in wanted:
        part = overhead(asked.rounds) if name == "overhead" else against(name == "small", asked.threads)
        parts[name] = {**part, "machine": machine()}
    path.write_text(json.dumps(parts, indent=1, sort_keys=True) + "\n")
    path.with_suffix(".md").write_text(table(parts))
    print(table(parts))


if __name__ == "__main__":
    main()
