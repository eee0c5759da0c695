"""Kills each kind of stage at random moments and runs it again; a program of its own, because it forks.

    python tests/kill_loop.py FOLDER KILLS SEED [KIND ...]

It makes a toy job in FOLDER, and prints as JSON for each kind how many runs were killed and what was found wrong:
anything else under a final name than the bytes of an undisturbed run, before or after the second run; what is left
beside it; a process that lives on.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import random
import re
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parent.parent
PARAMS = """
defaults:
  device: cpu
  precision: float32
  threads: 1
  seed: 0
  training: {optimizer: adamw, lr: 0.01, weight_decay: 0.01, schedule: cosine, warmup_epochs: 0.5, batch_size: 4,
    clip_norm: 1.0, ema_decay: 0.5}
tracking: {uri: "sqlite:///mlflow.db", experiment: toy, required: false, timeout: 5}
datasets:
  scenes: {source: openmoji_scenes, inputs: requirements.lock,
    options: {image_size: 64, num_train: 6, num_val: 2, num_test: 2}}
  digits: {source: digits, inputs: requirements.lock, options: {}}
augmentations:
  varied: {inputs: raw/scenes, copies: 1, min_visibility: 0.3, transforms: [{name: HorizontalFlip, p: 0.5}]}
features:
  pixels: {inputs: raw/digits, backbone: pixels, weights: none, image_size: 4, batch_size: 256}
runs:
  knn: {model: heads/knn, dataset: digits, inputs: features/pixels, model_params: {neighbours: 3}, training: {},
    prediction: {split: test, batch_size: 64}, evaluation: {top_k: 2}}
  unet: {model: segmentation/unet, dataset: scenes, inputs: augmented/varied,
    model_params: {encoder: test_efficientnet, weights: none, decoder_channels: [4, 4, 4, 4, 4]},
    training: {epochs: 2, image_size: 32}, prediction: {split: test, batch_size: 2}, evaluation: {}}
generators:
  vae: {model: generative/vae, dataset: digits, inputs: raw/digits, model_params: {latent: 2, hidden: 8},
    training: {epochs: 2, batch_size: 256}, sampling: {num_samples: 16, batch_size: 8, options: {}}, features: pixels,
    evaluation: {reference: test}}
robustness:
  shaken: {run: unet, dataset: scenes, metric: miou, corruptions: [fog], severities: [1]}
visualisations:
  pca: {module: embedding, method: pca, dataset: digits, inputs: features/pixels, options: {}}
"""

SETUP = [("download", "digits")]
KINDS = {
    "download": ("scenes", ["data/raw/scenes", "reports/data/scenes"]),
    "augment": ("varied", ["data/augmented/varied", "reports/data/varied"]),
    "extract": ("pixels", ["data/features/pixels"]),
    "train": ("unet", ["data/checkpoints/unet", "reports/runs/unet/training.csv"]),
    "predict": ("unet", ["data/predictions/unet"]),
    "evaluate": (
        "unet",
        [f"reports/runs/unet/{name}" for name in ("metrics.json", "per_image.parquet", "gallery.json", "pictures")],
    ),
    "corrupt": ("shaken", ["reports/robustness/shaken/metrics.json", "reports/robustness/shaken/pictures"]),
    "sample": ("vae", ["data/samples/vae"]),
    "visualise": ("pca", ["reports/visualise/pca"]),
    "report": (None, ["reports/index.html", "reports/summary.md"]),
}
BEFORE = {
    "sample": [("train", "vae")],
    "report": [("train", "knn"), ("predict", "knn"), ("evaluate", "knn"), ("evaluate", "vae")],
}
MANY = 10  # so many attempts to one on all cores
LEFT = re.compile(r"\..+\.[a-z0-9_]{8}")


ALL_CORES = os.sched_getaffinity(0)
ONE_CORE = {min(ALL_CORES)}


def start(verb: str, name: str | None, cores: set[int] = ONE_CORE) -> int:
    """A stage in a process group of its own, forked where its imports are already done.

    On several cores it starts further interpreters, which take seconds.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        os.sched_setaffinity(0, cores)
        log = os.open(f"{verb}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(log, 1)
        os.dup2(log, 2)
        from pipeline import cli

        code = cli.main([verb, *([name] if name else [])])
        Path(f"{verb}.modules").write_text("\n".join(sys.modules), encoding="utf-8")
    finally:
        os._exit(code)


def finish(verb: str, name: str | None, cores: set[int] = ONE_CORE) -> float:
    """Runs a stage to its end; its seconds."""
    started = time.perf_counter()
    _, status = os.waitpid(start(verb, name, cores), 0)
    if status:
        raise SystemExit(f"{verb} {name}: exit status {status}: {Path(f'{verb}.log').read_text()[-2000:]}")
    return time.perf_counter() - started


def import_all(verb: str) -> None:
    """Imports here what a stage has imported, so that it need not do it again at each attempt."""
    for module in Path(f"{verb}.modules").read_text(encoding="utf-8").splitlines():
        if module not in sys.modules:
            with contextlib.suppress(ImportError, AttributeError, KeyError):
                importlib.import_module(module)


def content(place: str) -> dict[str, str] | None:
    """The hash of each file under a name; None where there is nothing."""
    path = Path(place)
    if path.is_file():
        return {"": hashlib.sha256(path.read_bytes()).hexdigest()}
    if not path.is_dir():
        return None
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return {str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def remove(place: str) -> None:
    """As DVC does before a stage runs."""
    path = Path(place)
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def left_over() -> list[str]:
    """Temporary names beside outputs; snapshots of unfinished training are no outputs."""
    found = [p for folder in ("data", "reports") for p in Path(folder).rglob(".*") if LEFT.fullmatch(p.name)]
    return [str(p) for p in found if "resume" not in p.parts]


def lives(group: int) -> bool:
    """Whether any process of a group runs."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its_group) == group and state not in "ZX":
            return True
    return False


def kill_loop(verb: str, kills: int, rng: random.Random) -> dict[str, Any]:
    """Kills a kind of stage so often, at moments spread over its whole time."""
    name, places = KINDS[verb]
    for earlier in BEFORE.get(verb, []):
        finish(*earlier)
    finish(verb, name)
    import_all(verb)
    seconds = {1: finish(verb, name)}
    wanted = {place: content(place) for place in places}
    assert all(wanted.values()), f"{verb} wrote no {places}"
    faults: list[str] = []
    hit = 0
    for attempt in range(kills):
        cores = ALL_CORES if attempt % MANY == MANY - 1 else ONE_CORE
        if len(cores) not in seconds:
            seconds[len(cores)] = finish(verb, name, cores)
        if attempt % 2 == 0:
            for place in places:
                remove(place)
        pid = start(verb, name, cores)
        moment = seconds[len(cores)] * (attempt + rng.random()) / kills
        time.sleep(moment)
        at = f"{verb}, attempt {attempt}, killed after {moment:.3f} s on {len(cores)} cores"
        if attempt % 3 == 0:
            with contextlib.suppress(ProcessLookupError):  # it has no group of its own yet
                os.killpg(pid, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        hit += os.WIFSIGNALED(status)
        end = time.monotonic() + 10
        while lives(pid) and time.monotonic() < end:
            time.sleep(0.02)
        if lives(pid):
            faults.append(f"{at}: a process of it lives on")
            os.killpg(pid, signal.SIGKILL)
        half = [place for place in places if content(place) not in (None, wanted[place])]
        faults += [f"{at}: {place} is half there" for place in half]
        finish(verb, name)
        faults += [
            f"{at}: {place} has other bytes after the second run" for place in places if content(place) != wanted[place]
        ]
        faults += [f"{at}: {path} is left" for path in left_over()]
    return {"kills": kills, "hit": hit, "seconds": seconds, "faults": faults}


def main() -> None:
    """See above."""
    folder, kills, seed, *kinds = sys.argv[1:]
    sys.path.insert(0, str(PROJECT))
    os.environ.update({"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "NO_ALBUMENTATIONS_UPDATE": "1"})
    os.environ |= {"MPLBACKEND": "Agg", "PYTHONPATH": str(PROJECT)}
    os.chdir(folder)
    larger = PARAMS.replace("num_train: 6", "num_train: 20")  # so many that they are spread over all cores
    Path("params.yaml").write_text(larger if int(kills) >= MANY else PARAMS, encoding="utf-8")
    Path("requirements.lock").write_text("nothing\n", encoding="utf-8")
    for each in SETUP:
        finish(*each)
    rng = random.Random(int(seed))
    found = {}
    for verb in KINDS:
        if verb in kinds or not kinds:
            found[verb] = kill_loop(verb, kills=int(kills), rng=rng)
            print(verb, found[verb], file=sys.stderr, flush=True)
        else:
            for each in [*BEFORE.get(verb, []), (verb, KINDS[verb][0])]:
                finish(*each)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
