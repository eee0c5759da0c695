"""What every file under models/ promises of devices and of bfloat16, with the toys of test_models.py."""

import copy
import warnings
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from pipeline.models import backbones
from pipeline.training import seeding
from pipeline.training.sanity import unregularised
from tests.models.test_models import GENERATIVE, NAMES, SIDE, TINY, batch_for, fitted, toy

GPU = (pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))
DEVICES = ["cpu", pytest.param("cuda", marks=GPU)]
WARNED = {"classification/googlenet"}
"""Whose gradients a GPU adds up in any order, as torch says when it does: of a pool into 4x4 places."""
pytestmark = pytest.mark.filterwarnings("ignore:.* does not have a deterministic implementation:UserWarning")


@pytest.fixture(autouse=True)
def settings_of_torch():
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.manual_seed(0)
    yield
    seeding.set_up(SimpleNamespace(device="cpu", precision="float32", threads=threads, seed=0))
    torch.use_deterministic_algorithms(deterministic)


def set_up(device, precision="float32"):
    return seeding.set_up(SimpleNamespace(device=device, precision=precision, threads=1, seed=0))


def placed(model, device):
    """A copy as training has it on its device."""
    return copy.deepcopy(model).to(device, memory_format=torch.channels_last)


def losses_and_gradient(model, batch):
    """The losses of a training step by name, and all gradients in one vector."""
    model.zero_grad()
    torch.manual_seed(3)
    parts = model.loss(batch)
    parts["loss"].backward()
    gradients = [p.grad.flatten().double().cpu() for p in model.parameters() if p.grad is not None]
    return {key: value.item() for key, value in parts.items()}, torch.cat(gradients)


@pytest.fixture
def same_noise(monkeypatch):
    """Random numbers that models draw where they compute are those of the CPU."""
    rand, randn_like, randint = torch.rand, torch.randn_like, torch.randint
    monkeypatch.setattr(torch, "rand", lambda *shape, device=None, **rest: rand(*shape, **rest).to(device or "cpu"))
    monkeypatch.setattr(torch, "randn_like", lambda like: randn_like(torch.empty(like.shape)).to(like.device))
    monkeypatch.setattr(torch, "randint", lambda *bounds, device=None: randint(*bounds).to(device or "cpu"))


@contextmanager
def pretended():
    """Within, `cuda` is a device of tensors that have shapes and no values; those of two devices do not mix."""
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)


@pytest.mark.parametrize("name", NAMES)
def test_tensors_that_a_model_makes_lie_where_it_does(name):
    model, batch = toy(name), batch_for(name)
    # as far as shapes say what follows
    with suppress(DataDependentOutputException, DynamicOutputShapeException), pretended():
        model, batch = model.to("cuda"), batch.to("cuda")
        losses = list(model.train().loss(batch).values())
        model.eval()
        if hasattr(model, "measure"):
            losses += [value for pair in model.measure(batch)[1].values() for value in pair]
        assert {value.device.type for value in losses} == {"cuda"}
        if name in GENERATIVE:
            assert model.sample(2, torch.Generator().manual_seed(0)).device.type == "cuda"
        else:
            with pytest.raises(RuntimeError, match=r"numpy\(\) is not supported"):  # the end, which needs values
                model.predict(batch.images)


def test_a_tensor_that_stays_behind_is_found():
    model, batch = toy("classification/mlp"), batch_for("classification/mlp")
    mean = torch.zeros(3, 1, 1)  # no buffer
    model.network.register_forward_pre_hook(lambda _module, inputs: inputs[0] - mean)
    with pytest.raises(RuntimeError, match="device"), pretended():
        model.to("cuda").loss(batch.to("cuda"))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_losses_under_bfloat16_are_float32_and_near_those_without(name, device, same_noise):
    plain, rounded = set_up(device), set_up(device, "bfloat16")
    batch, model = batch_for(name).to(device), placed(toy(name), device)
    found = []
    with unregularised(model):
        for compute in (plain, rounded):
            torch.manual_seed(3)
            with compute.autocast():
                parts = model.loss(batch)
            assert {value.dtype for value in parts.values()} == {torch.float32}
            found.append({key: value.item() for key, value in parts.items()})
        parts["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert found[1] == pytest.approx(found[0], rel=0.05, abs=0.02)  # eight bits in each number on the way


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_answers_under_bfloat16_are_numbers_of_float32(name, device):
    compute, batch = set_up(device, "bfloat16"), batch_for(name)
    model = placed(toy(name), device).eval()
    with torch.inference_mode(), compute.autocast():
        if name in GENERATIVE:
            samples = model.sample(2, torch.Generator().manual_seed(0))
            assert samples.dtype == torch.float32
            assert samples.isfinite().all()
            return
        predictions = model.predict(batch.images.to(device))
    for prediction in predictions:
        floats = [values for values in (prediction.scores, prediction.boxes) if values is not None]
        assert all(values.dtype == np.float32 and np.isfinite(values).all() for values in floats)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
class TestOnAGpu:
    @pytest.mark.parametrize("name", NAMES)
    def test_losses_and_gradients_are_those_of_the_cpu(self, name, same_noise):
        set_up("cuda")
        model, batch = toy(name), batch_for(name)
        on_gpu = placed(model, "cuda")
        with unregularised(model), unregularised(on_gpu):
            losses, gradient = losses_and_gradient(model, batch)
            found, of_gpu = losses_and_gradient(on_gpu, batch.to("cuda"))
        assert found == pytest.approx(losses, rel=1e-4, abs=1e-5)
        # float32 itself is up to 1.6e-3 off float64 here, where a maximum has two places
        assert (of_gpu - gradient).norm() <= 1e-2 * gradient.norm()

    @pytest.mark.parametrize("name", NAMES)
    def test_answers_are_those_of_the_cpu(self, name):
        model, _ = fitted(name)
        set_up("cuda")
        with torch.inference_mode():
            if name in GENERATIVE:
                expected, found = (
                    each.sample(3, torch.Generator().manual_seed(5)).cpu() for each in (model, placed(model, "cuda"))
                )
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
                return
            images = batch_for(name).images
            expected, found = model.predict(images), placed(model, "cuda").predict(images.to("cuda"))
        for one, other in zip(expected, found, strict=True):
            if one.label_map is not None:
                assert (one.label_map == other.label_map).mean() > 0.999  # of pixels between two classes
            elif one.boxes is not None:
                # the best, for boxes of near scores change places, and come and go at the lowest
                np.testing.assert_allclose(other.scores[:20], one.scores[:20], atol=1e-4)
                np.testing.assert_allclose(other.boxes[0], one.boxes[0], atol=SIDE * 1e-3)
                assert other.labels[0] == one.labels[0]
            else:
                np.testing.assert_allclose(other.scores, one.scores, atol=1e-4)

    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    @pytest.mark.parametrize("name", NAMES)
    def test_two_trainings_end_in_equal_bytes_unless_torch_says_otherwise(self, name, precision):
        compute, batch, ends = set_up("cuda", precision), batch_for(name).to("cuda"), []
        begin = toy(name)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            for _ in range(2):
                torch.manual_seed(1)
                model = placed(begin, "cuda").train()
                optimiser = torch.optim.AdamW(model.parameters(), 1e-3)
                for _ in range(5):
                    optimiser.zero_grad()
                    with compute.autocast():
                        parts = model.loss(batch)
                    parts["loss"].backward()
                    optimiser.step()
                ends.append({"loss": parts["loss"].detach()} | model.state_dict())
        messages = {str(warning.message).split("\n")[0] for warning in said if "determin" in str(warning.message)}
        assert bool(messages) == (name in WARNED), messages
        if not messages:
            different = [key for key in ends[0] if not torch.equal(ends[0][key], ends[1][key])]
            assert not different

    def test_features_are_those_of_the_cpu(self):
        images, found = list(np.random.default_rng(0).integers(0, 256, (5, 40, 48, 3)).astype(np.uint8)), []
        for device in ("cpu", "cuda"):
            compute = set_up(device)
            found.append(backbones.extractor(TINY, "none", 32, channels=3, device=compute.device)(images))
        np.testing.assert_allclose(found[1], found[0], rtol=0, atol=1e-4 * np.abs(found[0]).max())
