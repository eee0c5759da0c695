import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline import params as schema
from pipeline.data.loader import Loader
from pipeline.data.store import Store, to_row, writing
from pipeline.errors import DivergedError, ParamsError, PipelineError
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
GPU = (pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))
COMPUTES = [
    CPU,
    *(pytest.param(Compute(torch.device("cuda"), bfloat16=each), marks=GPU) for each in (False, True)),
]


@pytest.fixture(autouse=True)
def settings_of_torch():
    """As `seeding.set_up` has them."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


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


def train(store, training, snapshots=None, seed=0, compute=CPU):
    """A trained model and its log, from a state of torch that the seed fixes."""
    torch.manual_seed(seed)
    info = store.info
    model = tasks.build("classification/resnet", info, MODEL, training)
    loaders = [Loader(store.split(split), training.batch_size, (8, 8)) for split in ("train", "val")]
    rows = loop.fit(model, *loaders, training, seed=seed, compute=compute, snapshots=snapshots)
    return model, rows


def bytes_of(model, folder):
    arrays = {key: value.cpu().numpy() for key, value in model.state_dict().items()}
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


@pytest.mark.parametrize("compute", COMPUTES, ids=str)
@pytest.mark.parametrize("changes", [{}, {"ema_decay": 0.0}, {"optimizer": "sgd", "keep": "best"}, {"accumulate": 2}])
@pytest.mark.parametrize("stop", [2, 5, 10])  # of 12 batches, 3 to an epoch
def test_interrupted_within_an_epoch_and_resumed_equals_uninterrupted(
    store, tmp_path, monkeypatch, stop, changes, compute
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "GPU_STEPS", 1)
    monkeypatch.setattr(loop, "SNAPSHOT_SECONDS", -1.0)
    monkeypatch.setattr(loop, "SNAPSHOT_SHARE", 1e9)
    training = settings(**changes)
    whole, rows = train(store, training, compute=compute)
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
            train(store, training, Snapshots("run", 0, "digest"), compute=compute)
        before, seen[:] = seen.copy(), [None] * 100  # which stops no more
        resumed, resumed_rows = train(store, training, Snapshots("run", 0, "digest"), compute=compute)
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
    assert [list(row) for row in rows] == [["epoch", "lr", "loss", "val_loss", "val_top1", "grad_norm"]] * EPOCHS
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


def test_accumulated_batches_make_the_step_of_one_large_batch(store):
    """Batches of 4, 4 and 2 images weigh as their images do."""
    weights = []
    for changes in ({"batch_size": 4, "accumulate": 3}, {"batch_size": 10}):
        model = Line()
        training = settings(**PLAIN | changes, epochs=1, lr=0.1)
        (row,) = loop.fit(model, *loaders(store, training.batch_size), training, seed=0, compute=CPU)
        weights.append((model.weight.item(), row["grad_norm"]))
    mean = np.mean([sample.image.mean() / 255 for sample in store.split("train")])
    # one step of Nesterov's first size, 1.9 of the gradient 3 * mean
    assert weights[0] == pytest.approx((1 - 0.1 * 1.9 * 3 * mean, 3 * mean), rel=1e-5)
    assert weights[0] == pytest.approx(weights[1], rel=1e-6)


def test_the_gradients_norm_is_logged_as_it_was_before_clipping(store):
    training = settings(**(PLAIN | {"clip_norm": 0.01}), epochs=1, lr=0.01, batch_size=16)
    (row,) = loop.fit(Line(), *loaders(store, 16), training, seed=0, compute=CPU)
    mean = np.mean([sample.image.mean() / 255 for sample in store.split("train")])
    assert row["grad_norm"] == pytest.approx(3 * mean, rel=1e-5)


class Scripted(nn.Module):
    """A weight that is one more after each step, and validation that gives what is written."""

    def __init__(self, val_losses, accuracies=None):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.0))
        self.script = iter(zip(val_losses, accuracies or val_losses, strict=True))

    def loss(self, batch):
        return {"loss": -self.weight + 0 * batch.images.sum()}

    def measure(self, batch):
        loss, accuracy = next(self.script)
        absent = torch.tensor([accuracy, 0.0]), torch.tensor([1.0, 0.0])
        return {"loss": torch.tensor(loss)}, {"top1": (torch.tensor(accuracy), torch.tensor(1)), "miou": absent}


STEPPING = PLAIN | {"lr": 1.0, "momentum": 0.0, "batch_size": 16}


def scripted(store, *script, **changes):
    model = Scripted(*script)
    training = settings(**STEPPING | changes)
    return model, loop.fit(model, *loaders(store, 16), training, seed=0, compute=CPU)


def test_the_best_epochs_weights_are_kept_the_first_of_equals(store):
    losses = [0.5, 0.2, 0.9, 0.2]
    model, rows = scripted(store, losses, keep="best")
    assert [row["val_loss"] for row in rows] == pytest.approx(losses)
    assert model.weight.item() == 2
    model, _ = scripted(store, losses, [0.1, 0.3, 0.2, 0.8], keep="best", monitor="val_top1")
    assert model.weight.item() == 4
    model, _ = scripted(store, losses)
    assert model.weight.item() == 4  # the last ones are the default
    model, _ = scripted(store, [float("nan")] * 4, keep="best")
    assert model.weight.item() == 4


def test_metrics_are_sums_divided_and_averaged_over_what_is_there(store):
    _, rows = scripted(store, [0.5] * 4, [0.25] * 4)
    assert list(rows[0]) == ["epoch", "lr", "loss", "val_loss", "val_top1", "val_miou", "grad_norm"]
    assert (rows[0]["val_top1"], rows[0]["val_miou"]) == (0.25, 0.25)  # the second class is nowhere


def test_patience_ends_training_after_so_many_epochs_without_a_better_one(store):
    model, rows = scripted(store, [0.5, 0.4, 0.6, 0.45, 0.1], epochs=5, patience=2, keep="best")
    assert len(rows) == 4
    assert model.weight.item() == 2
    _, rows = scripted(store, [0.5, 0.4, 0.6, 0.45, 0.1], epochs=5, patience=3)
    assert len(rows) == 5


def test_a_monitor_that_is_no_column_is_told_after_the_first_epoch(store):
    with pytest.raises(ParamsError, match=r"training\.monitor: no column 'val_top2'; did you mean 'val_top1'\?"):
        scripted(store, [0.5] * 4, keep="best", monitor="val_top2")


def test_fewer_epochs_follow_the_schedule_of_all(store):
    training = settings(epochs=4)
    whole = train(store, training)[1]
    torch.manual_seed(0)
    model = tasks.build("classification/resnet", store.info, MODEL, training)
    rows = loop.fit(model, *loaders(store), training, seed=0, compute=CPU, epochs=2)
    assert rows == whole[:2]


def test_who_watches_sees_each_row_and_may_end_it(store):
    seen = []

    def watch(row):
        seen.append(row)
        if row["epoch"] == 2:
            raise StopIteration

    with pytest.raises(StopIteration):
        loop.fit(Line(), *loaders(store), settings(**PLAIN), seed=0, compute=CPU, watch=watch)
    assert [row["epoch"] for row in seen] == [1, 2]


def test_a_model_that_finishes_gets_the_training_images_as_they_are(store):
    class Storing(Line):
        def finish(self, batches):
            assert not self.training
            self.ids = [image_id for batch in batches for image_id in batch.image_ids]
            self.weight.data.fill_(7.0)

    model = Storing()
    loop.fit(model, *loaders(store), settings(**PLAIN | {"ema_decay": 0.9}), seed=0, compute=CPU)
    assert model.ids == store.split("train").column("image_id")
    assert model.weight.item() == 7


def test_lbfgs_finds_a_quadratics_minimum_in_one_step(store):
    class Quadratic(Line):
        def loss(self, batch):
            return {"loss": (self.weight - batch.images.mean()) ** 2}

    model = Quadratic()
    training = settings(**PLAIN | {"optimizer": "lbfgs", "lr": 1.0, "batch_size": 16, "epochs": 1})
    (row,) = loop.fit(model, *loaders(store, 16), training, seed=0, compute=CPU)
    mean = np.mean([sample.image.mean() / 255 for sample in store.split("train")])
    assert model.weight.item() == pytest.approx(mean, rel=1e-4)
    assert row["loss"] == pytest.approx((1 - mean) ** 2, rel=1e-4)  # before the step
    network, rows = train(store, settings(**PLAIN | {"optimizer": "lbfgs", "lr": 1.0, "batch_size": 16, "epochs": 2}))
    assert rows[1]["loss"] < rows[0]["loss"]
    assert all(torch.isfinite(value).all() for value in network.state_dict().values())


def test_a_gradient_that_is_not_finite_stops_and_is_named(store):
    class Steep(Line):
        def loss(self, batch):
            return {"loss": super().loss(batch)["loss"] + torch.sqrt(0 * self.weight)}

    with pytest.raises(DivergedError, match=r"^toy epoch 1 step 1: the gradient is not finite \(norm nan, loss "):
        loop.fit(Steep(), *loaders(store), settings(**PLAIN), seed=0, compute=CPU, name="toy")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory"),
            "out of memory on cpu with batches of 4 images of 8x8; fix: halve",
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out of memory on cpu"),
        (MemoryError(), "out of memory on cpu"),
        (
            ValueError("Expected more than 1 value per channel when training, got input size"),
            r"batch norm .* the last of 3 batches has 2 image\(s\); fix: another training.batch_size than 4",
        ),
    ],
)
def test_what_another_batch_size_mends_is_one_line(store, error, message):
    class Failing(Line):
        def loss(self, batch):
            raise error

    with pytest.raises(PipelineError, match=f"^toy: {message}"):
        loop.fit(Failing(), *loaders(store), settings(**PLAIN), seed=0, compute=CPU, name="toy")


def test_other_errors_stay_what_they_are(store):
    class Failing(Line):
        def loss(self, batch):
            raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        loop.fit(Failing(), *loaders(store), settings(**PLAIN), seed=0, compute=CPU)


def test_bfloat16_computes_otherwise_and_learns(store):
    losses = []
    for bfloat16 in (False, True):
        torch.manual_seed(0)  # of the first weights and of dropout
        model = tasks.build("classification/resnet", store.info, MODEL, settings())
        compute = Compute(torch.device("cpu"), bfloat16=bfloat16)
        training = settings(**PLAIN, batch_size=NUM_TRAIN, epochs=20, lr=0.05)
        rows = loop.fit(model, *loaders(store, NUM_TRAIN), training, seed=0, compute=compute)
        losses.append([row["loss"] for row in rows])
    exact, rounded = losses
    assert rounded[0] != exact[0]
    assert rounded[0] == pytest.approx(exact[0], abs=0.01)  # of the same weights, in numbers of 8 bits
    assert rounded[-1] < 0.5 * rounded[0]


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


def test_it_is_the_average_that_is_validated_and_training_goes_on_from_the_weights(store):
    training = settings(**(PLAIN | {"ema_decay": 0.999}), epochs=2, lr=0.01, batch_size=16)
    model = Line()
    rows = loop.fit(model, *loaders(store, 16), training, seed=0, compute=CPU)
    means = {split: np.mean([sample.image.mean() / 255 for sample in store.split(split)]) for split in ("train", "val")}
    # first step: weight 1 - 1.9 g, average 2 / 11 of 1 and 9 / 11 of it, with g = 0.01 * 3 * mean
    step = 0.01 * 3 * means["train"]
    assert rows[0]["val_loss_level"] == pytest.approx((1 - 1.9 * step * 9 / 11) * means["val"], rel=1e-5)
    # second step: velocity 1.9 g, weight moves by g + 0.9 * 1.9 g more; the average moves 9 / 12 of the way
    weights = 1 - 1.9 * step, 1 - 1.9 * step - 2.71 * step
    average = 1 - 1.9 * step * 9 / 11
    average += (weights[1] - average) * 9 / 12
    assert rows[1]["loss_level"] == pytest.approx(weights[0] * means["train"], rel=1e-5)
    assert model.weight.item() == pytest.approx(average, rel=1e-5)


def test_validation_is_the_same_at_every_call_and_leaves_no_gradient(store):
    model = tasks.build("classification/resnet", store.info, MODEL)
    val = loaders(store)[1]
    first, again = loop.validate(model, val, 0, CPU), loop.validate(model, val, 0, CPU)
    assert first == again
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_narrow_network_learns_on_large_maps(store):
    code = f"""
import json, sys
from pathlib import Path
import torch
from pipeline import params
from pipeline.data.loader import Loader
from pipeline.data.store import Store
from pipeline.models import tasks
from pipeline.training import loop
from pipeline.training.seeding import Compute

split = Store(Path(sys.argv[1])).split("train")
training = params.Training(**json.loads(sys.argv[2]))
model = tasks.build("classification/resnet", split.info, {MODEL!r}, training)
compute = Compute(torch.device("cpu"), bfloat16=False)
loop.fit(model, Loader(split, 4, (64, 64)), None, training, seed=0, compute=compute)
"""
    wanted = settings(epochs=1, online=schema.Online()).model_dump_json()
    command = [sys.executable, "-c", code, str(store.folder), wanted]
    done = subprocess.run(command, capture_output=True, text=True)  # a fault of torch would end the process
    assert done.returncode == 0, done.stderr
