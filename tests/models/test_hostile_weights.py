"""Files of weights from elsewhere: what could run code, is damaged or wrong is refused in one line."""

import json
import pickle
import struct
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from pipeline.errors import PipelineError
from pipeline.models import backbones

TINY = "test_efficientnet"


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.marker,))


def header(content: dict) -> bytes:
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text


def tensor(start: int, end: int, shape: list[int] | None = None) -> dict:
    return {"dtype": "F32", "shape": shape or [(end - start) // 4], "data_offsets": [start, end]}


GOOD = header({"a": tensor(0, 4), "b": tensor(4, 8)}) + bytes(8)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>404</html>",
        GOOD[:-1],
        GOOD[:20],
        struct.pack("<Q", 2**62) + b"{}",
        header({"a": tensor(0, 4000)}) + bytes(8),
        header({"a": tensor(0, 8), "b": tensor(4, 8)}) + bytes(8),
        header({"a": tensor(0, 8, [2**40, 2**40])}) + bytes(8),
        header({"a": {"dtype": "PICKLE", "shape": [2], "data_offsets": [0, 8]}}) + bytes(8),
        header({"a": tensor(4, 0)}) + bytes(8),
    ],
)
def test_a_malformed_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(
        PipelineError, match=r"weights\.safetensors: not a readable safetensors file \(.*; fix: "
    ) as caught:
        backbones.create(TINY, str(path))
    assert "\n" not in str(caught.value)


def test_of_two_tensors_of_one_name_none_is_taken_for_the_network(tmp_path: Path) -> None:
    text = b'{"a":' + json.dumps(tensor(0, 4)).encode() + b',"a":' + json.dumps(tensor(0, 4)).encode() + b"}"
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    with pytest.raises(PipelineError, match=r"w\.safetensors"):
        backbones.create(TINY, str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_a_pickle_is_not_run_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "hacked"
    for save in (pickle.dump, torch.save):
        with (tmp_path / name).open("wb") as file:
            save({"conv_stem.weight": Payload(marker)}, file)
        with pytest.raises(PipelineError, match="not a readable safetensors file") as caught:
            backbones.create(TINY, str(tmp_path / name))
        assert "weights_only" not in str(caught.value)
        assert not marker.exists()


def test_weights_that_are_no_numbers_are_refused_by_tensor(tmp_path: Path) -> None:
    state = timm.create_model(TINY).state_dict()
    state["conv_stem.weight"][0, 0, 0, 0] = float("nan")
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(PipelineError, match=r"w\.safetensors conv_stem\.weight: NaN or infinite; fix"):
        backbones.create(TINY, str(tmp_path / "w.safetensors"))


def test_the_prefix_of_a_network_that_was_trained_on_many_devices_is_taken_off(tmp_path: Path) -> None:
    source = timm.create_model(TINY)
    save_file({f"module.{key}": value for key, value in source.state_dict().items()}, tmp_path / "w.safetensors")
    network = backbones.create(TINY, str(tmp_path / "w.safetensors"))
    assert torch.equal(network.state_dict()["conv_stem.weight"], source.state_dict()["conv_stem.weight"])
