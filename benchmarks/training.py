"""Measures how fast networks train and features are extracted; keeps it in benchmarks/results/training.{json,md}.

    python benchmarks/training.py [--rounds 7] [--seconds 4]

Training by `loop.fit`, with its loading, logging and checks, takes turns with a bare loop in PyTorch over batches that
are decoded already: the same network, batches, optimiser, clipping and schedule. Each training has a new loader, which
decodes every image once and keeps the pixels for the epochs that follow. Extraction by the stage's own code, with
reading, decoding and resizing, takes turns with the bare forward pass over decoded batches. All run on one core, which
theirs spends on computing alone and ours on loading too. The median of the rounds' ratios is kept, so that a busy
machine slows both. Where Lightning can be imported (`pip install lightning`) its Trainer takes turns as well.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update({"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"})
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from data import photograph
from main_job import RESULTS, figure, machine, shown
from pipeline.data.loader import Loader
from pipeline.data.store import Split, Store, to_row, writing
from pipeline.models import extractors, tasks
from pipeline.params import Defaults, Training
from pipeline.stages.extract import _extract
from pipeline.structures import DatasetInfo, Sample
from pipeline.training import loop, optim, seeding

NETWORKS: dict[str, tuple[str, dict[str, Any], int, int]] = {
    "resnet of 8 layers, 8x8": (
        "classification/resnet",
        {"layers": [1, 1, 1, 1], "channels": [32, 64, 128, 128], "small_stem": True},
        8,
        64,
    ),
    "resnet of 8 layers, 96x96": (
        "classification/resnet",
        {"layers": [1, 1, 1, 1], "channels": [32, 64, 128, 256]},
        96,
        32,
    ),
    "alexnet of CIFAR, 32x32": ("classification/cifar_alexnet", {}, 32, 64),
}
"""Model, its params, side of images, batch size."""
BACKBONE, SIDE = "tf_efficientnet_lite0", 224
TARGET = 0.95
DEFAULTS = Defaults(device="cpu", precision="float32", threads=1, seed=0, training={})


def store(folder: Path, num: int, height: int, width: int) -> Split:
    """So many photographs of a size as the train split of a store, with ten classes."""
    from PIL import Image

    info = DatasetInfo("photographs", ["classification"], [f"c{i}" for i in range(10)], 3, "none", "none", "made here")
    with writing(folder, info) as writer:
        for index in range(num):
            data = photograph(index % 64, height, width)
            with Image.open(io.BytesIO(data)) as image:
                pixels = np.asarray(image.convert("RGB"))
            writer.add("train", to_row(Sample(str(index), "", pixels, label=index % 10), data))
    return Store(folder).split("train")


def by_turns(contestants: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each in every round, one after the other; a first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, run in contestants.items():
            with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                spent = run()
            if number:
                seconds[name].append(spent)
    return seconds


def timed(run: Callable[[], Any]) -> float:
    """Seconds of a call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def ratios(seconds: dict[str, list[float]], name: str) -> float:
    """How fast a contestant is beside the bare one: the median of the rounds."""
    return statistics.median(bare / own for bare, own in zip(seconds["bare"], seconds[name], strict=True))


def settings(batch_size: int) -> Training:
    """Those of the default job, without augmentation."""
    return Training(
        epochs=1, optimizer="adamw", lr=1e-3, weight_decay=0.01, schedule="cosine", warmup_epochs=0.0,
        batch_size=batch_size, clip_norm=1.0, ema_decay=0.0,
    )  # fmt: skip


def bare_loop(model: Any, batches: list[Any], training: Training) -> None:
    """What a person would write for one epoch; the loss is read at each step, to see that it is finite."""
    optimiser = optim.optimiser(model, training)
    factor = optim.scheduled(training, total=len(batches), warmup=0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
    model.train()
    total = 0.0
    for batch in batches:
        optimiser.zero_grad(set_to_none=True)
        loss = model.loss(batch)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
        optimiser.step()
        schedule.step()
        total += loss.item()
    assert np.isfinite(total)


def lightning_epoch(model: Any, batches: list[Any], training: Training) -> None:
    """The same by Lightning's Trainer, its logs and checkpoints off."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: Any, _index: int) -> Any:
            return self.model.loss(batch)["loss"]

        def configure_optimizers(self) -> Any:
            optimiser = optim.optimiser(self.model, training)
            factor = optim.scheduled(training, total=len(batches), warmup=0)
            schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
            return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    trainer = lightning.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, gradient_clip_val=training.clip_norm, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    # a list would be taken for a list of loaders
    trainer.fit(Module(), train_dataloaders=torch.utils.data.DataLoader(batches, batch_size=None))  # type: ignore[arg-type]


def measure_training(folder: Path, num: int, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """One figure for each network, on so many images of its own size, as a user who cares for speed stores them."""
    compute = seeding.set_up(DEFAULTS)
    figures = []
    for title, (name, params, side, batch_size) in NETWORKS.items():
        images = store(folder / str(side), num, side, side)
        info = tasks.at_size(images.info, (side, side))
        training = settings(batch_size)
        new_loader = functools.partial(Loader, images, batch_size, (side, side))
        batches = [batch.to("cpu") for batch in new_loader().batches()]
        enough = [batch for batch in batches if len(batch.images) == batch_size]

        def fresh(name: str = name, info: DatasetInfo = info, params: Any = params, training: Any = training) -> Any:
            torch.manual_seed(0)
            return tasks.build(name, info, params, training).to(memory_format=torch.channels_last)

        bare_loop(model := fresh(), enough[:2], training)
        one = timed(lambda model=model, enough=enough, training=training: bare_loop(model, enough[:4], training)) / 4
        epochs = max(1, round(seconds / one / len(batches)))

        def bare(batches: list[Any] = batches * epochs, training: Training = training, fresh: Any = fresh) -> float:
            model = fresh()
            return timed(lambda: bare_loop(model, batches, training))

        def ours(
            new_loader: Any = new_loader, training: Training = training, fresh: Any = fresh, num: int = epochs
        ) -> float:
            model, loader, longer = fresh(), new_loader(), training.model_copy(update={"epochs": num})
            return timed(lambda: loop.fit(model, loader, None, longer, seed=0, compute=compute))

        contestants = {"bare": bare, "ours": ours}
        if importlib.util.find_spec("lightning"):
            contestants["lightning"] = lambda batches=batches * epochs, training=training, fresh=fresh: (
                lambda model: timed(lambda: lightning_epoch(model, batches, training))
            )(fresh())
        spent = by_turns(contestants, rounds)
        note = f"{epochs} epochs, {epochs * len(images) / statistics.median(spent['ours']):.0f} images/s"
        if "lightning" in spent:
            note += f"; Lightning's Trainer on the same decoded batches {ratios(spent, 'lightning'):.3f} of bare"
        figures.append(
            figure(f"training, {title}, batch {batch_size}", round(ratios(spent, "ours"), 3), TARGET, ">=", note)
        )
        print(figures[-1])
    return figures


def measure_extraction(folder: Path, num: int, rounds: int) -> list[dict[str, Any]]:
    """A frozen backbone over photographs, as the stage does it, and its forward pass alone."""
    compute = seeding.set_up(DEFAULTS)
    extractor: Any = extractors.extractor(BACKBONE, "none", SIDE, options={}, where="features.x", channels=3)
    images = store(folder / "photographs", num, 360, 480)
    size = 32
    decoded = [batch.to("cpu") for batch in Loader(images, size, (SIDE, SIDE)).batches()]

    def forward() -> None:
        with torch.inference_mode():
            for batch in decoded:
                extractor.network(batch.images).numpy()

    spent = by_turns(
        {
            "bare": lambda: timed(forward),
            "ours": lambda: timed(lambda: _extract(images, extractor, size, compute, "features")),
        },
        rounds,
    )
    note = f"{num / statistics.median(spent['ours']):.1f} images/s"
    name = f"extraction, {BACKBONE}, {SIDE}x{SIDE}, with reading, decoding and resizing"
    return [figure(name, round(ratios(spent, "ours"), 3), TARGET, ">=", note)]


def table(content: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["# Training and extraction: what they must reach beside bare PyTorch, and what they do", ""]
    lines += [
        "`python benchmarks/training.py` measures and writes this. Ratios are of speed: 1 is as fast as bare.",
        "",
    ]
    lines += ["| figure | target | measured | met | note |", "|---|---:|---:|---|---|"]
    for one in content["figures"]:
        target = f"{one['rule']} {one['target']}"
        lines.append(f"| {' | '.join((one['name'], target, shown(one['measured']), shown(one['met']), one['note']))} |")
    lines += ["", f"Medians of {content['rounds']} rounds by turns, all on one core of {content['machine']}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures, keeps the results, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="repetitions by turns; medians are kept")
    parser.add_argument("--seconds", type=float, default=4.0, help="of the bare loop in each round, about")
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--dry", action="store_true", help="keep nothing")
    asked = parser.parse_args()
    here = machine()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # and of the threads that it starts
    with tempfile.TemporaryDirectory() as folder:
        figures = measure_training(Path(folder), asked.images, asked.rounds, asked.seconds)
        figures += measure_extraction(Path(folder), 320, asked.rounds)
    content = {"rounds": asked.rounds, "machine": here, "figures": figures}
    if not asked.dry:
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / "training.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        (RESULTS / "training.md").write_text(table(content), encoding="utf-8")
    print(table(content))


if __name__ == "__main__":
    main()
