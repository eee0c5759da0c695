from types import SimpleNamespace

import pytest
import torch

from pipeline.errors import ParamsError
from pipeline.training import seeding


@pytest.fixture(autouse=True)
def settings_of_torch():
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def defaults(**changes):
    return SimpleNamespace(**({"device": "cpu", "precision": "auto", "threads": 1, "seed": 7} | changes))


def test_derived_seeds_never_change():
    # another value here would change every trained weight
    assert seeding.derive(0, "epoch", 3) == 2259207091418452794
    assert 0 <= seeding.derive(1) < 2**63


def test_derived_seeds_differ_by_part_type_and_order():
    parts = [(1,), ("1",), (1, 2), (2, 1), (12,), (1, "epoch", 2), ("epoch", 1, 2)]
    assert len({seeding.derive(*p) for p in parts}) == len(parts)


def test_set_up_seeds_torch_and_sets_threads():
    draws = []
    for _ in range(2):
        compute = seeding.set_up(defaults())
        draws.append(torch.rand(3).tolist())
    assert draws[0] == draws[1]
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()
    assert compute == seeding.Compute(torch.device("cpu"), bfloat16=False)


def test_bfloat16_is_used_when_asked_for():
    compute = seeding.set_up(defaults(precision="bfloat16"))
    with compute.autocast():
        assert torch.nn.Linear(2, 2)(torch.rand(1, 2)).dtype == torch.bfloat16
    with seeding.set_up(defaults(precision="float32")).autocast():
        assert torch.nn.Linear(2, 2)(torch.rand(1, 2)).dtype == torch.float32


def test_on_a_gpu_attention_adds_up_in_one_order_and_float32_is_float32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    fused = torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.mem_efficient_sdp_enabled
    fused += (torch.backends.cuda.cudnn_sdp_enabled,)
    before = [each() for each in fused]
    assert seeding.set_up(defaults(device="auto")) == seeding.Compute(torch.device("cuda"), bfloat16=True)
    assert [each() for each in fused] == [False] * 3
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    seeding.set_up(defaults())
    assert [each() for each in fused] == before == [True] * 3  # on the CPU they are one order each


def test_a_gpu_that_is_not_there_is_refused_in_one_line():
    name = f"cuda:{torch.cuda.device_count() + 1}"
    with pytest.raises(ParamsError, match=rf"defaults\.device: '{name}' is asked for, .*; fix: device: auto"):
        seeding.set_up(defaults(device=name))
