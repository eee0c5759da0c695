import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from pipeline.data.store import to_row, writing
from pipeline.structures import Batch, DatasetInfo, Sample
from pipeline.training import distributed
from pipeline.training.distributed import Processes, _GlobalBatchNorm
from pipeline.training.seeding import Compute


def process(index, num):
    """One of several, that does not talk to the others."""
    one = Processes.__new__(Processes)
    one.index, one.num = index, num
    return one


def batch_of(num):
    return Batch(torch.arange(num).view(-1, 1, 1, 1).float(), [str(i) for i in range(num)], [(1, 1)] * num)


@given(num=st.integers(1, 20), processes=st.integers(1, 8))
def test_shares_are_the_whole_batch_once_and_nobody_is_without_an_image(num, processes):
    shared = [process(index, processes).share(batch_of(num)) for index in range(processes)]
    counted = [image_id for batch, own in shared for image_id in batch.image_ids[:own]]
    assert counted == batch_of(num).image_ids
    assert all(len(batch.images) == len(batch.sizes) == max(1, own) for batch, own in shared)
    assert max(own for _, own in shared) - min(own for _, own in shared) <= 1


@given(num=st.integers(0, 40), batch_size=st.integers(1, 12), processes=st.integers(1, 5))
def test_only_the_own_share_is_read_and_stands_where_it_did(num, batch_size, processes):
    order = np.random.default_rng(0).permutation(num)
    for index in range(processes):
        one = process(index, processes)
        needed = one.needed(order, batch_size)
        for start in range(0, num, batch_size):
            whole, part = order[start : start + batch_size], needed[start : start + batch_size]
            rows = len(whole) * index // processes, len(whole) * (index + 1) // processes
            assert (part[slice(*rows)] == whole[slice(*rows)]).all()
            assert len(set(part)) <= max(1, rows[1] - rows[0])
    assert (order == np.random.default_rng(0).permutation(num)).all()


@given(num=st.integers(1, 40), batch_size=st.integers(1, 12), processes=st.integers(1, 5))
def test_each_image_is_validated_once_in_the_batches_of_one_process(num, batch_size, processes):
    parts = [process(index, processes).whole_batches(num, batch_size) for index in range(processes)]
    assert sorted(np.concatenate(parts)) == list(range(num))
    for part in parts:
        for start in range(0, len(part), batch_size):
            assert len(set(part[start : start + batch_size] // batch_size)) == 1


def test_one_process_alone_is_untouched():
    alone = Processes(Compute(torch.device("cpu"), bfloat16=False))
    assert (alone.num, alone.index, alone.is_main, alone.apart) == (1, 0, True, ())
    batch, loss = batch_of(3), torch.tensor(2.0, requires_grad=True)
    assert alone.share(batch) == (batch, 3)
    assert alone.gather("x") == ["x"]
    assert alone.sum(loss) is loss
    alone.backward(loss, 2, 8)  # two images of a step of eight
    assert loss.grad == 0.25


def test_clipping_gives_the_norm_that_was():
    alone = Processes(Compute(torch.device("cpu"), bfloat16=False))
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3.0, 4.0])
    assert alone.clip([parameter], 0.0) == 5
    assert parameter.grad.tolist() == [3, 4]
    assert alone.clip([parameter], 1.0) == 5
    assert parameter.grad.tolist() == pytest.approx([0.6, 0.8], rel=1e-5)


@pytest.fixture
def group(tmp_path):
    """A group of this process alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("shape", [(5, 3, 4, 6), (7, 3)])
def test_the_batch_norm_of_all_processes_is_torchs(group, shape):
    torch.manual_seed(0)
    values = torch.randn(shape) * 3 + 2
    found = []
    for mode in (None, _GlobalBatchNorm()):
        images = values.clone().requires_grad_()
        scale, shift = torch.tensor([1.0, 2.0, -1.0], requires_grad=True), torch.tensor([0.5, 0, 1], requires_grad=True)
        mean, var = torch.zeros(3), torch.ones(3)
        if mode is None:
            out = F.batch_norm(images, mean, var, scale, shift, True, 0.1, 1e-5)
        else:
            with mode:
                out = F.batch_norm(images, mean, var, scale, shift, True, 0.1, 1e-5)
        (out.sin() * torch.arange(out.numel()).view(shape)).sum().backward()
        found.append((out.detach(), mean, var, images.grad, scale.grad, shift.grad))
    for ours, torchs in zip(*reversed(found), strict=True):
        assert torch.allclose(ours, torchs, rtol=1e-4, atol=1e-4)


def test_a_single_value_of_all_processes_has_no_spread(group):
    one = torch.ones(1, 2, 1, 1)
    for mode in (nullcontext(), _GlobalBatchNorm()):
        with mode, pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
            F.batch_norm(one, torch.zeros(2), torch.ones(2), training=True)


def test_in_evaluation_it_takes_the_running_statistics(group):
    images, mean, var = torch.randn(4, 2, 3, 3), torch.tensor([1.0, 2.0]), torch.tensor([4.0, 9.0])
    with _GlobalBatchNorm():
        out = F.batch_norm(images, mean, var, training=False)
    assert torch.equal(out, F.batch_norm(images, mean, var, training=False))


DOUBLE = """
import os, sys
from dataclasses import replace
from pathlib import Path
import torch
from pipeline import params as schema
from pipeline.data.loader import Loader
from pipeline.data.store import Store
from pipeline.models import tasks
from pipeline.training import loop
from pipeline.training.seeding import Compute

torch.set_num_threads(1)
store = Store(Path("toy"))
training = schema.Training(
    epochs=2, optimizer="adamw", lr=0.003, weight_decay=0.01, schedule="cosine", warmup_epochs=0.5, batch_size=6,
    accumulate=2, clip_norm=1.0, ema_decay=0.9, label_smoothing=0.1,
    online=schema.Online(flip=0.3, crop=0.1, mixup=float(sys.argv[2])),
)
torch.manual_seed(0)
options = {"layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4], "small_stem": True}
model = tasks.build("classification/resnet", store.info, options, training).double()
loss, measure = model.loss, model.measure

def double(batch):
    weights = batch.label_weights
    return replace(batch, images=batch.images.double(), label_weights=None if weights is None else weights.double())

model.loss, model.measure = (lambda batch: loss(double(batch))), (lambda batch: measure(double(batch)))
loaders = [Loader(store.split(split), 6, (16, 16)) for split in ("train", "val")]
rows = loop.fit(model, *loaders, training, seed=0, compute=Compute(torch.device("cpu"), False))
if os.environ.get("RANK", "0") == "0":
    torch.save({"weights": model.state_dict(), "rows": rows}, sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("mixup", ["0.3", "0.0"])
def test_two_processes_learn_what_one_does_but_for_the_order_of_sums(tmp_path, mixup):
    """In double precision, where what rounding does stays small; the last batch has one image, so one has none."""
    info = DatasetInfo("toy", ["classification"], ["dark", "light", "grey"], 1, "none", "none", "here")
    rng = np.random.default_rng(0)
    with writing(tmp_path / "toy", info) as writer:
        for split, num in (("train", 31), ("val", 8)):
            for i in range(num):
                image = (rng.integers(0, 100, (16, 16, 1)) + 75 * (i % 3)).astype(np.uint8)
                writer.add(split, to_row(Sample(f"{split}{i}", "", image, label=i % 3)))
    (tmp_path / "double.py").write_text(DOUBLE)
    environment = {**os.environ, "PYTHONPATH": str(Path(distributed.__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    found = []
    for name, command in (("one.pt", [sys.executable]), ("two.pt", two)):
        done = subprocess.run(
            [*command, "double.py", name, mixup], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("epoch 2/2") == 1  # one of them speaks
        found.append(torch.load(tmp_path / name))
    one, both = found
    for key, want in one["weights"].items():
        assert torch.allclose(both["weights"][key].double(), want.double(), rtol=1e-9, atol=1e-11), key
    for row, want in zip(both["rows"], one["rows"], strict=True):
        assert row == pytest.approx(want, rel=1e-9)
