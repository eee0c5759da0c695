import pytest
import torch
from torch import nn

from pipeline.data.store import Store, to_row, writing
from pipeline.errors import PipelineError
from pipeline.structures import DatasetInfo, Sample
from pipeline.training import memory
from pipeline.training.seeding import Compute

CPU = Compute(torch.device("cpu"), bfloat16=False)
IMAGE = 8 * 8 * 4  # bytes of an image as float32


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    import numpy as np

    folder = tmp_path_factory.mktemp("memory") / "toy"
    with writing(folder, DatasetInfo("toy", [], [], 1, "none", "none", "here")) as writer:
        for i in range(100):
            writer.add("train", to_row(Sample(str(i), "", np.full((8, 8, 1), i, np.uint8))))
    return Store(folder).split("train")


class Weighted(nn.Module):
    """Of each image, autograd keeps it (for the weight's gradient) and its product (for the square's)."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 1, 8, 8))

    def loss(self, batch):
        return {"loss": (batch.images * self.weight).pow(2).sum()}


def size(asked, split, model=None, num=1):
    return memory.batch_size(asked, model or Weighted(), split, (8, 8), CPU, num=num, name="toy")


def test_numbers_and_all_are_what_they_say(split):
    assert size(24, split) == 24
    assert size("all", split) == 100


def test_what_an_image_takes_is_counted_by_hand(split):
    trial = memory._Trial(Weighted(), split, (8, 8), CPU)
    assert trial.kept(2) == 2 * 2 * IMAGE
    assert trial.kept(4) == 4 * 2 * IMAGE


@pytest.mark.parametrize(("images", "want"), [(1, 1), (5, 4), (8, 8), (15.9, 8), (1e6, 64)])
def test_auto_is_the_largest_power_of_two_that_half_of_the_memory_holds(split, monkeypatch, capsys, images, want):
    # five times the weights, which are as large as an image, and two images' worth for each image
    needed = (5 * IMAGE + images * 2 * IMAGE) / memory.SHARE
    monkeypatch.setattr(memory, "total_memory", lambda device: round(needed))
    model = Weighted()
    assert size("auto", split, model) == want
    assert capsys.readouterr().err.startswith(f"toy: batch_size auto is {want} (")
    assert model.weight.grad is None


def test_memory_for_no_image_is_one_line(split, monkeypatch):
    monkeypatch.setattr(memory, "total_memory", lambda device: 3000)
    with pytest.raises(PipelineError, match=r"toy: not one image of 8x8 fits into the memory of cpu .*; fix: lower"):
        size("auto", split)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_what_does_not_even_fit_to_be_tried_is_one_line(split, monkeypatch, error):
    def loss(self, batch):
        raise error

    monkeypatch.setattr(Weighted, "loss", loss)
    with pytest.raises(PipelineError, match=r"^toy: out of memory on cpu with four images of 8x8, .*; fix: write"):
        size("auto", split, Weighted())


def test_another_error_of_a_model_is_told_as_it_is(split, monkeypatch):
    def loss(self, batch):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(Weighted, "loss", loss)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        size("auto", split, Weighted())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_auto_is_tried_on_a_gpu(split, capsys):
    device = Compute(torch.device("cuda"), bfloat16=True)
    assert memory.batch_size("auto", Weighted(), split, (8, 8), device, num=1, name="toy") == 64  # of 100 images
