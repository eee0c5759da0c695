import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from pipeline import paths
from pipeline.errors import ParamsError
from pipeline.models import tasks
from pipeline.params import Visualisation
from pipeline.structures import DatasetInfo
from pipeline.training import checkpoint as checkpoints
from pipeline.visualise import complexity, cost_table
from pipeline.visualise.layer_costs import Layer

INFO = DatasetInfo("toy", ["classification"], ["up", "down"], 1, "", "", "", mean=[0.5], std=[0.25], image_size=[8, 8])
MODEL, OPTIONS = "classification/vgg", {"blocks": [1, 1], "channels": 2, "hidden": []}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with one trained network."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    network = tasks.builder(MODEL)(INFO, **OPTIONS)
    arrays = {key: value.numpy() for key, value in network.state_dict().items()}
    checkpoints.save(paths.checkpoint("small"), checkpoints.Checkpoint(MODEL, OPTIONS, INFO, arrays))
    return tmp_path


def draw(folder, inputs="checkpoints/small"):
    folder.mkdir()
    entry = Visualisation(module="complexity", method="layers", dataset="toy", inputs=inputs, options={})
    return complexity.layers(None, entry, folder)


def test_the_report_of_a_checkpoint_says_the_same_in_all_files(project):
    title, caption = draw(project / "out")
    # convolutions (9 + 1) 2 and (18 + 1) 4, then 4 x 2 x 2 numbers to 2 classes: 17 * 2
    assert title == "Layers of small"
    assert "8x8: 130 parameters" in caption
    content = json.loads((project / "out/complexity.json").read_text(encoding="utf-8"))
    # 2 * 9 * 2 * 64 + 2 * 18 * 4 * 16 + 2 * 16 * 2
    assert content["totals"]["flops"] == 2304 + 2304 + 64
    assert content["totals"]["parameters"] == 20 + 76 + 34
    rows = list(csv.DictReader((project / "out/complexity.csv").read_text(encoding="utf-8").splitlines()))
    assert [int(row["parameters"]) for row in rows] == [layer["parameters"] for layer in content["layers"]]
    second = next(row for row in rows if row["output"] == "4x4x4" and row["kind"] == "Conv2d")
    assert (second["kernel"], second["stride"], second["field"], second["jump"]) == ("3x3", "1x1", "8", "2")
    assert (project / "out/complexity.png").read_bytes().startswith(b"\x89PNG")


def test_the_files_are_the_same_bytes_each_time(project):
    for name in ("first", "second"):
        draw(project / name)
    for file in ("complexity.csv", "complexity.json", "complexity.png"):
        assert (project / "first" / file).read_bytes() == (project / "second" / file).read_bytes()


def test_the_table_as_text_lines_up_and_ends_with_its_sums():
    layers = [
        Layer("a", "Conv2d", (4, 8, 8), 1000, 2000, 1024, (3, 3), (1, 1), (3, 3), (1, 1)),
        Layer("b.longer", "Linear", (10,), 5, 6, 40, receptive_field=(10, 12), jump=(1, 1)),
    ]
    lines = cost_table.lines(layers)
    assert lines[0].split() == [
        "layer",
        "kind",
        "output",
        "kernel",
        "stride",
        "parameters",
        "FLOPs",
        "bytes",
        "field",
        "jump",
    ]
    assert lines[1].split() == ["a", "Conv2d", "4x8x8", "3x3", "1x1", "1,000", "2,000", "1,024", "3", "1"]
    assert lines[2].split() == ["b.longer", "Linear", "10", "5", "6", "40", "10x12", "1"]
    assert lines[3].split() == ["total", "1,005", "2,006", "1,064"]
    assert lines[4] == cost_table.CONVENTION
    assert lines[1].index("1,000") + 5 == lines[2].index(" 5 ") + 2 == lines[3].index("1,005") + 5


def test_many_layers_are_added_up_by_part():
    layers = [Layer(f"{part}.{index}", "Conv2d", (index,), 1, 2, 3) for part in "xy" for index in range(5)]
    rows = complexity.grouped([*layers, Layer("z", "Linear", (2,), 7)], most=4)
    assert [(row.name, row.kind, row.shape, row.parameters, row.flops) for row in rows] == [
        ("x", "", (4,), 5, 10),
        ("y", "", (4,), 5, 10),
        ("z", "Linear", (2,), 7, 0),
    ]
    assert complexity.grouped(layers, most=10) == layers


def test_a_part_sees_as_far_as_the_widest_layer_in_it():
    block = [
        Layer("x.conv", "Conv2d", (2,), receptive_field=(7, 7)),
        Layer("x.shortcut", "Conv2d", (2,), receptive_field=(3, 3)),
    ]
    (row,) = complexity.grouped(block, most=1)
    assert row.receptive_field == (7, 7)


def run_of(model, params, image_size=None):
    return SimpleNamespace(
        model=model, model_params=params, dataset="toy", training=SimpleNamespace(image_size=image_size)
    )


@pytest.fixture
def params(monkeypatch):
    """Runs on a dataset of images of 8 pixels."""
    monkeypatch.setattr(cost_table, "Store", lambda folder: SimpleNamespace(info=INFO))
    runs = {
        "small": run_of(MODEL, OPTIONS),
        "larger": run_of(MODEL, OPTIONS, 16),
        "boxes": run_of("detection/fcos", {}),
        "line": run_of("regression/linear", {}),
    }
    return SimpleNamespace(runs=runs)


def test_the_command_needs_no_checkpoint_and_takes_the_size_of_the_run(params):
    shapes = [
        next(layer.shape for layer in layers if layer.kind == "Conv2d")
        for layers in (
            cost_table.of_run(params, "small"),
            cost_table.of_run(params, "larger"),
            cost_table.of_run(params, "small", image_size=32),
        )
    ]
    assert shapes == [(2, 8, 8), (2, 16, 16), (2, 32, 32)]


def test_what_has_no_single_pass_and_unknown_runs_are_told(params):
    with pytest.raises(ParamsError, match=r"runs\.boxes\.model: detection/fcos is no single pass"):
        cost_table.of_run(params, "boxes")
    with pytest.raises(ParamsError, match=r"runs\.line\.model: regression/linear is no single pass"):
        cost_table.of_run(params, "line")
    with pytest.raises(ParamsError, match="no 'smal' in runs; did you mean 'small'"):
        cost_table.of_run(params, "smal")


def test_a_checkpoint_without_a_single_pass_is_told(project):
    checkpoints.save(paths.checkpoint("line"), checkpoints.Checkpoint("regression/linear", {}, INFO, {}))
    with pytest.raises(ParamsError, match=r"checkpoints/line: regression/linear is no single pass"):
        draw(project / "drawn", "checkpoints/line")


def test_images_of_several_sizes_are_told(params, monkeypatch):
    varied = replace(INFO, image_size=None)
    monkeypatch.setattr(cost_table, "Store", lambda folder: SimpleNamespace(info=varied))
    with pytest.raises(ParamsError, match=r"runs\.small: images of several sizes; fix: set training\.image_size"):
        cost_table.of_run(params, "small")
