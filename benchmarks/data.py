"""Measures how fast images are read, augmented and loaded; keeps it in benchmarks/results/data.{json,md}.

Each part can run alone and replaces its own part of the results:

    python benchmarks/data.py --ingest    files to a store, against bare decoding of the same files on as many cores
    python benchmarks/data.py --augment   copies, against bare albumentations calls with as much decoding and encoding
    python benchmarks/data.py --loader    batches, against bare decoding of the same bytes in as many threads
    python benchmarks/data.py --many      100,000 small images: memory of ingest, seconds of `dvc status`

Contestants take turns; the medians of their seconds are compared, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from PIL import Image

from main_job import RESULTS, call, figure, machine, shown, watched

CORES = len(os.sched_getaffinity(0))
CHUNK = 16
TRANSFORMS: list[dict[str, Any]] = [
    {"name": "HorizontalFlip", "p": 0.5},
    {"name": "Affine", "rotate": [-20, 20], "scale": [0.8, 1.15], "p": 0.9},
    {"name": "ColorJitter", "hue": 0.1, "p": 0.8},
]


def photograph(index: int, height: int = 360, width: int = 480) -> bytes:
    """A JPEG with structure at all scales, cut out of one of scikit-image's photographs."""
    import skimage.data

    source = (skimage.data.astronaut, skimage.data.coffee, skimage.data.chelsea, skimage.data.rocket)[index % 4]()
    rng = np.random.default_rng(index)
    top, left = (int(rng.integers(0, side // 3)) for side in source.shape[:2])
    picture = Image.fromarray(source[top:, left:]).resize((width, height), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def photographs(folder: Path, num: int) -> list[Path]:
    """So many JPEG files."""
    folder.mkdir()
    files = [folder / f"{index:05}.jpg" for index in range(num)]
    for index, file in enumerate(files):
        file.write_bytes(photograph(index))
    return files


def classes(name: str) -> Any:
    """What is known of a dataset with ten classes."""
    from pipeline.structures import DatasetInfo

    return DatasetInfo(name, ["classification"], [f"c{index}" for index in range(10)], 3, "none", "none", "made here")


def stored(folder: Path, files: Sequence[Path]) -> None:
    """The files as a store, by `ingest`."""
    from pipeline.data.ingest import ingest
    from pipeline.data.records import Record

    records = (Record("train", file.stem, file.name, file, label=index % 10) for index, file in enumerate(files))
    ingest(folder, classes("photographs"), records)


def by_turns(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each, run one after the other in every round; a first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, run in contestants.items():
            started = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def in_processes(function: Callable[[Any], Any], items: Sequence[Any]) -> None:
    """`function` of all items on all cores, results dropped where they were made."""
    blocks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    with ProcessPoolExecutor(CORES, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_each, [(function, block) for block in blocks]))


def _each(work: tuple[Callable[[Any], Any], Sequence[Any]]) -> int:
    function, items = work
    for item in items:
        function(item)
    return len(items)


def decoded(data: bytes) -> np.ndarray:
    """The pixels."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def decode_file(file: Path) -> None:
    """Reads and decodes a file, at full size."""
    decoded(file.read_bytes())


def verify_file(file: Path) -> None:
    """Reads a file and decodes it as `ingest` does: one of eight at full size, the others at an eighth of it."""
    with Image.open(io.BytesIO(file.read_bytes())) as image:
        if int(file.stem) % 8:
            image.draft("RGB", (image.width // 8, image.height // 8))
        np.asarray(image.convert("RGB"))


def measure_ingest(num: int, rounds: int) -> dict[str, Any]:
    """`ingest` of files against decoding them, at the scales that it decodes them at and all at full size."""
    with tempfile.TemporaryDirectory() as scratch:
        files = photographs(Path(scratch) / "files", num)
        seconds = by_turns(
            {
                "bare": lambda: in_processes(verify_file, files),
                "bare at full size": lambda: in_processes(decode_file, files),
                "ours": lambda: stored(Path(scratch) / "store", files),
            },
            rounds,
        )
    note = f"{num} JPEG of 480x360: {_rates(seconds, num)}; both start {CORES} processes"
    names = {"bare": "at the scales it decodes at", "bare at full size": "of all at full size"}
    return {
        "figures": [
            figure(f"ingest against bare decoding {words}", seconds[name] / seconds["ours"], 0.9, ">=", note)
            for name, words in names.items()
        ]
    }


def _rates(seconds: dict[str, float], num: int) -> str:
    return ", ".join(f"{name} {num / value:.0f} images/s" for name, value in seconds.items())


_bare_policy: Any = None


def bare_copy(data: bytes) -> None:
    """Decodes, calls albumentations with the image alone, encodes with Pillow at its quickest."""
    Image.fromarray(_called(data)).save(io.BytesIO(), "PNG", compress_level=1)


def bare_copy_quick(data: bytes) -> None:
    """The same with the encoder of the stage."""
    from pipeline.data.store import encode_png

    encode_png(_called(data), quick=True)


def _called(data: bytes) -> np.ndarray:
    global _bare_policy
    if _bare_policy is None:
        import cv2

        cv2.setNumThreads(1)
        _bare_policy = bare_compose()
    return _bare_policy(image=decoded(data))["image"]


def bare_compose() -> Any:
    """The policy as albumentations' documentation has it."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations as a

    return a.Compose(
        [
            a.HorizontalFlip(p=0.5),
            a.Affine(rotate=(-20, 20), scale=(0.8, 1.15), p=0.9),
            a.ColorJitter(hue=0.1, p=0.8),
        ]
    )


def measure_augment(num: int, rounds: int) -> dict[str, Any]:
    """The stage against bare calls on as many cores, and one call of ours against one of albumentations."""
    from pipeline.data.store import Store
    from pipeline.params import Augmentation, Defaults, Params
    from pipeline.stages import augment

    defaults = Defaults(device="cpu", precision="float32", threads=1, seed=0, training={})
    entry = Augmentation(inputs="raw/photographs", copies=1, min_visibility=0.3, transforms=TRANSFORMS)
    params = Params.model_construct(defaults=defaults, augmentations={"varied": entry})
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        stored(Path("data/raw/photographs"), photographs(Path("files"), num))
        encoded = Store(Path("data/raw/photographs")).split("train").column("image")
        seconds = by_turns(
            {
                "bare": lambda: in_processes(bare_copy, encoded),
                "bare with the stage's encoder": lambda: in_processes(bare_copy_quick, encoded),
                "ours": lambda: augment.run(params, "varied"),
            },
            rounds,
        )
        single = _single_calls(rounds)
        os.chdir(here)
    note = f"{num} JPEG of 480x360: {_rates(seconds, num)}; the stage with its report, bare: decode, call, encode"
    ratios = {name: times["bare"] / times["ours"] for name, times in single.items()}
    names = {
        "bare": "with Pillow's PNG",
        "bare with the stage's encoder": "with its own PNG",
    }
    figures = [
        figure(f"augment stage against bare calls {words}", seconds[name] / seconds["ours"], 0.9, ">=", note)
        for name, words in names.items()
    ]
    for name, ratio in ratios.items():
        note = ", ".join(f"{who} {1000 * value:.2f} ms" for who, value in single[name].items())
        figures.append(figure(f"one call, {name}", ratio, 0.9, ">=", note))
    return {"figures": figures}


def _single_calls(rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds of one copy on one core, with decoded truth, ours and albumentations' own.

    Both draw the same random numbers, for one policy does much in one call and nothing in the next.
    """
    import cv2

    from pipeline.data.augmentation import augmented, compose, copy_seed
    from pipeline.ops.masks import boxes_of
    from pipeline.structures import Objects, Sample

    cv2.setNumThreads(1)
    pixels = decoded(photograph(0))
    height, width = pixels.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    centres = np.random.default_rng(0).uniform((40, 40), (height - 40, width - 40), (6, 2))
    masks = np.stack([(rows - y) ** 2 + (columns - x) ** 2 < 900 for y, x in centres])
    area = masks.sum((1, 2)).astype(np.float32)
    objects = Objects(boxes_of(masks), np.arange(6), area, np.zeros(6, bool), masks)
    workloads = {
        "image alone": Sample("a", "a.png", pixels, label=1),
        "image with 6 masks": Sample("a", "a.png", pixels, objects=objects),
    }
    policy, bare, info, times = compose(TRANSFORMS, "transforms", 0.3), bare_compose(), classes("toy"), {}
    for name, sample in workloads.items():
        truth = {} if sample.objects is None else {"masks": masks.view(np.uint8)}

        def ours(sample: Any = sample) -> None:
            for number in range(50):
                augmented(sample, policy, info, seed=0, number=number)

        def theirs(sample: Any = sample, truth: Any = truth) -> None:
            for number in range(50):
                bare.set_random_seed(copy_seed(0, sample.image_id, number))
                bare(image=pixels, **truth)

        measured = by_turns({"bare": theirs, "ours": ours}, rounds)
        times[name] = {who: value / 50 for who, value in measured.items()}
    return times


def measure_loader(num: int, rounds: int) -> dict[str, Any]:
    """Batches of tensors against bare decoding, at the images' own size and at a smaller one."""
    from pipeline.data import loader
    from pipeline.data.store import Store

    loader.CACHE_BYTES = 0  # every epoch decodes
    with tempfile.TemporaryDirectory() as scratch:
        stored(Path(scratch) / "store", photographs(Path(scratch) / "files", num))
        split = Store(Path(scratch) / "store").split("train")
        encoded = split.column("image")

        def bare(function: Callable[[bytes], Any]) -> None:
            with ThreadPoolExecutor(CORES) as pool:
                for _ in pool.map(function, encoded, chunksize=CHUNK):
                    pass

        own_size, smaller = (loader.Loader(split, 32, size, workers=CORES) for size in ((360, 480), (224, 224)))

        def ours(batches: loader.Loader) -> None:
            for _ in batches.batches():  # an epoch; as in a training, one loader serves them all
                pass

        contestants = {
            "bare": lambda: bare(decoded),
            "bare, small": lambda: bare(small),
            "ours": lambda: ours(own_size),
            "ours, small": lambda: ours(smaller),
        }
        seconds = by_turns(contestants, rounds)
    own = {name: seconds[name] for name in ("bare", "ours")}
    resized = {name: seconds[f"{name}, small"] for name in ("bare", "ours")}
    note = f"{num} JPEG of 480x360, {CORES} threads: {_rates(own, num)}; ours also makes batches"
    note_resized = f"to 224x224: {_rates(resized, num)}; bare: Pillow's antialiased resize of bytes"
    return {
        "figures": [
            figure("loader against bare decoding", own["bare"] / own["ours"], 0.95, ">=", note),
            figure("loader against decoding and resizing", resized["bare"] / resized["ours"], 0.95, ">=", note_resized),
        ]
    }


def small(data: bytes) -> np.ndarray:
    """The pixels at 224 x 224."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))


def many_records(num: int) -> Iterator[Any]:
    """Small PNG images, made one by one."""
    from pipeline.data.records import Record

    rng = np.random.default_rng(0)
    for index in range(num):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(buffer, "PNG")
        yield Record("train", f"{index:06}", f"{index:06}.png", buffer.getvalue(), label=index % 10)


def write_many(folder: Path, num: int) -> None:
    """The store of so many small images."""
    from pipeline.data.ingest import ingest

    ingest(folder, classes("many"), many_records(num), num_records=num)


def measure_many(num: int) -> dict[str, Any]:
    """Memory of ingest as the number of images grows, and what DVC takes to look at the result."""
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch)
        peaks, took = [], 0.0
        for count in (num // 5, num):
            command = [sys.executable, str(Path(__file__).resolve()), "--write-many", "data", "--num", str(count)]
            took, peak = watched(command, project)
            peaks.append(peak)
        call(["git", "init", "-q"], project)
        call(["dvc", "init", "-q"], project)
        stages = {"many": {"cmd": "true", "deps": ["data"], "outs": []}}
        (project / "dvc.yaml").write_text(json.dumps({"stages": stages}))
        call(["dvc", "add", "-q", "data"], project)
        call(["dvc", "repro", "-q"], project)
        seconds = statistics.median(call(["dvc", "status", "-q"], project) for _ in range(3))
        num_files = sum(path.is_file() for path in (project / "data").iterdir())
    note = f"peaks {peaks[0]:.0f} MB for {num // 5} and {peaks[1]:.0f} MB for {num} images, all processes; {took:.0f} s"
    return {
        "figures": [
            figure("memory of five times as many images", peaks[1] / peaks[0], 1.25, "<=", note),
            figure(f"dvc status of {num} images, seconds", seconds, 5, "<=", f"{num_files} files"),
        ]
    }


def table(parts: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["# Reading, augmenting and loading: what it must reach, and what it does", ""]
    lines += ["`python benchmarks/data.py` measures and writes this. Ratios are of speed: 1 is as fast as bare.", ""]
    lines += ["| figure | target | measured | met | note |", "|---|---:|---:|---|---|"]
    for part in parts.values():
        for one in part["figures"]:
            target = f"{one['rule']} {one['target']}"
            cells = (one["name"], target, shown(one["measured"]), shown(one["met"]), one["note"])
            lines.append(f"| {' | '.join(cells)} |")
    for name, part in parts.items():
        lines += ["", f"`{name}` measured on {part['machine']}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs the parts that were asked for, merges them into the results, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("ingest", "augment", "loader", "many"):
        parser.add_argument(f"--{flag}", action="store_true")
    parser.add_argument("--num", type=int, help="images; 2000 or, for --many, 100000")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions by turns; medians are kept")
    parser.add_argument("--dry", action="store_true", help="keep nothing")
    parser.add_argument("--write-many", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.write_many:
        write_many(asked.write_many, asked.num)
        return
    num = asked.num or 2000
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "ingest": lambda: measure_ingest(num, asked.rounds),
        "augment": lambda: measure_augment(num, asked.rounds),
        "loader": lambda: measure_loader(num, asked.rounds),
        "many": lambda: measure_many(asked.num or 100_000),
    }
    chosen = [name for name in measures if getattr(asked, name)] or list(measures)
    path = RESULTS / "data.json"
    measured = {name: {**measures[name](), "machine": machine()} for name in chosen}
    parts = (json.loads(path.read_text()) if path.is_file() and not asked.dry else {}) | measured
    parts = {name: parts[name] for name in measures if name in parts}
    if not asked.dry:
        RESULTS.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(parts, indent=1) + "\n", encoding="utf-8")
        (RESULTS / "data.md").write_text(table(parts), encoding="utf-8")
    print(table(parts))


if __name__ == "__main__":
    main()
