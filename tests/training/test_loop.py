import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline import params as schema
from pipeline.data.loader import Loader
from pipeline.data.store import Store, to_row, writing
from pipeline.errors import PipelineError
from pipeline.models import tasks
from pipeline.structures import DatasetInfo, Sample
from pipeline.training import checkpoint as checkpoints
from pipeline.training import loop
from pipeline.training.checkpoint import Checkpoint, Snapshots
from pipeline.training.seeding import Compute
from pipeline.training.state import Average

NUM_TRAIN, EPOCHS = 10, 4
MODEL = {"layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4], "small_stem": True, "dropout": 0.2}
CPU = Compute(torch.device("cpu"), bfloat16=False)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loop") / "toy"
    info = DatasetInfo("toy", ["classification"], ["dark", "light"], 1, "none", "none", "here")
    rng = np.random.default_rng(0)
    with writing(folder, info) as writer:
        for split, num in (("train", NUM_TRAIN), ("val", 3)):
            for i in range(num):
                image = (rng.integers(0, 100, (8, 8, 1)) + 150 * (i % 2)).astype(np.uint8)
                writer.add(split, to_row(Sample(f"{split}{i}", "", image, label=i % 2)))
    return Store(folder)


def settings(**changes):
    values = {
        "epochs": EPOCHS, "optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1, "schedule": "cosine",
        "warmup_epochs": 0.5, "batch_size": 4, "clip_norm": 1.0, "ema_decay": 0.9,
        "online": schema.Online(flip=0.5, crop=0.2, mixup=0.3), "label_smoothing": 0.1,
    }  # fmt: skip
    return schema.Training(**(values | changes))


def train(store, training, snapshots=None, seed=0):
    """A trained model and its log, from a state of torch that the seed fixes."""
    torch.manual_seed(seed)
    info = store.info
    model = tasks.build("classification/resnet", info, MODEL, training)
    loaders = [Loader(store.split(split), training.batch_size, (8, 8)) for split in ("train", "val")]
    rows = loop.fit(model, *loaders, training, seed=seed, compute=CPU, snapshots=snapshots)
    return model, rows


def bytes_of(model, folder):
    arrays = {key: value.numpy() for key, value in model.state_dict().items()}
    info = DatasetInfo("toy", ["classification"], ["dark", "light"], 1, "none", "none", "here")
    checkpoints.save(folder, Checkpoint("classification/resnet", MODEL, info, arrays))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_same_seed_same_bytes_and_another_seed_others(store, tmp_path):
    written, logs = [], []
    for i, seed in enumerate((0, 0, 1)):
        model, rows = train(store, settings(), seed=seed)
        written.append(bytes_of(model, tmp_path / str(i)))
        logs.append(rows)
    assert written[0] == written[1]
    assert logs[0] == logs[1]
    assert written[0]["weights.safetensors"] != written[2]["weights.safetensors"]


@pytest.mark.parametrize("changes", [{}, {"ema_decay": 0.0}, {"optimizer": "sgd", "keep": "best"}, {"accumulate": 2}])
@pytest.mark.parametrize("stop", [2, 5, 10])  # of 12 batches, 3 to an epoch
def test_interrupted_within_an_epoch_and_resumed_equals_uninterrupted(store, tmp_path, monkeypatch, stop, changes):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "SNAPSHOT_SECONDS", -1.0)
    monkeypatch.setattr(loop, "SNAPSHOT_SHARE", 1e9)
    training = settings(**changes)
    whole, rows = train(store, training)
    original = loop.augment_batch
    seen = []

    def interrupted(*args):
        seen.append(args[0].image_ids)
        if len(seen) == stop:
            raise KeyboardInterrupt
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "augment_batch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(store, training, Snapshots("run", 0, "digest"))
        before, seen[:] = seen.copy(), [None] * 100  # which stops no more
        resumed, resumed_rows = train(store, training, Snapshots("run", 0, "digest"))
    batches = training.accumulate * ((stop - 1) % 3 // training.accumulate) + (stop - 1) // 3 * 3
    assert seen[100] == before[batches]  # it goes on with the batch of the step that was not done
    assert len(seen) == 100 + 12 - batches
    assert resumed_rows == rows
    assert bytes_of(resumed, tmp_path / "a") == bytes_of(whole, tmp_path / "b")
    assert len(list(Path("data/resume").rglob("*.pt"))) == 1
    logged = [json.loads(line) for line in Path("data/resume/run/0/run/log.jsonl").read_text().splitlines()]
    assert logged == rows


def test_a_finished_run_that_runs_again_gives_the_same(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "SNAPSHOT_SECONDS", -1.0)
    first, rows = train(store, settings(), Snapshots("run", 0, "digest"))
    again, rows_again = train(store, settings(), Snapshots("run", 0, "digest"))
    assert rows_again == rows
    assert bytes_of(again, tmp_path / "a") == bytes_of(first, tmp_path / "b")


def test_log_has_a_row_per_epoch_with_the_rate_after_it(store):
    _, rows = train(store, settings())
    assert [list(row) for row in rows] == [["epoch", "lr", "loss", "val_loss", "grad_norm"]] * EPOCHS
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    # 12 steps, 2 of them warm-up (round(0.5 * 3) = 2): after epoch e the rate is that of step 3 e
    want = [0.005 * (1 + np.cos(np.pi * (3 * epoch - 2) / 10)) for epoch in (1, 2, 3, 4)]
    assert [row["lr"] for row in rows] == pytest.approx(want, abs=1e-12)


class Line(nn.Module):
    """Loss w * mean of the images, so that every step can be worked by hand."""

    def __init__(self, spoilt=None):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))
        self.spoilt, self.steps = spoilt, 0

    def loss(self, batch):
        self.steps += self.training
        level = self.weight * batch.images.mean()
        extra = level * (float("nan") if self.steps == self.spoilt else 2.0)
        return {"loss": level + extra, "level": level, "extra": extra}


PLAIN = {
    "optimizer": "sgd", "schedule": "constant", "warmup_epochs": 0.0, "weight_decay": 0.0, "clip_norm": 0.0,
    "ema_decay": 0.0, "online": schema.Online(), "label_smoothing": 0.0,
}  # fmt: skip


def loaders(store, batch_size=4):
    return [Loader(store.split(split), batch_size, (8, 8)) for split in ("train", "val")]


@pytest.mark.parametrize(("step", "where"), [(2, "toy epoch 1 step 2"), (6, "toy epoch 2 step 3")])
def test_a_loss_that_is_not_finite_stops_and_names_epoch_step_and_parts(store, step, where):
    with pytest.raises(PipelineError) as caught:
        loop.fit(Line(spoilt=step), *loaders(store), settings(**PLAIN), seed=0, compute=CPU, name="toy")
    message = str(caught.value)
    assert message.startswith(f"{where}: the loss is not finite (loss nan, level ")
    assert message.endswith("extra nan); fix: lower lr")
    assert "\n" not in message


def test_losses_are_averaged_over_images_not_batches(store):
    training = settings(**PLAIN, epochs=1, lr=1e-12)
    (row,) = loop.fit(Line(), *loaders(store), training, seed=0, compute=CPU)
    means = {split: np.mean([sample.image.mean() / 255 for sample in store.split(split)]) for split in ("train", "val")}
    # batches of 4, 4 and 2 images: a mean over batches would weigh the last two double
    assert row["loss_level"] == pytest.approx(means["train"], rel=1e-6)
    assert row["loss"] == pytest.approx(3 * means["train"], rel=1e-6)
    assert row["val_loss_extra"] == pytest.approx(2 * means["val"], rel=1e-6)


def test_clip_norm_bounds_the_step(store):
    training = settings(**(PLAIN | {"clip_norm": 0.5}), epochs=1, lr=0.01, batch_size=16)
    model = Line()
    loop.fit(model, *loaders(store, 16), training, seed=0, compute=CPU)
    # one step of a gradient of 3 * mean > 0.5, cut to 0.5; Nesterov's first step is 1.9 of it
    assert model.weight.item() == pytest.approx(1 - 0.01 * 1.9 * 0.5, abs=1e-6)


def test_average_by_hand():
    layer = nn.BatchNorm1d(1)
    layer.weight.data.fill_(1.0)
    average = Average(layer, decay=0.5)
    assert "num_batches_tracked" not in average.weights
    layer.weight.data.fill_(12.0)
    average.update(layer, 1)
    # decay min(0.5, 2 / 11): 1 + (1 - 2 / 11) * 11
    assert average.weights["weight"].item() == pytest.approx(10.0)
    average.update(layer, 100)
    # decay min(0.5, 101 / 110): half way
    assert average.weights["weight"].item() == pytest.approx(11.0)


def test_the_average_is_what_remains_after_training(store):
    model = Line()
    training = settings(**(PLAIN | {"ema_decay": 0.999}), epochs=1, lr=0.01, batch_size=16)
    loop.fit(model, *loaders(store, 16), training, seed=0, compute=CPU)
    mean = np.mean([sample.image.mean() / 255 for sample in store.split("train")])
    step = 0.01 * 1.9 * 3 * mean
    assert model.weight.item() == pytest.approx(1 - step * (1 - 2 / 11), rel=1e-5)


def test_validation_is_the_same_at_every_call_and_leaves_no_gradient(store):
    model = tasks.build("classification/resnet", store.info, MODEL)
    val = loaders(store)[1]
    first, again = loop.validate(model, val, 0, CPU), loop.validate(model, val, 0, CPU)
    assert first == again
    assert all(parameter.grad is None for parameter in model.parameters())
