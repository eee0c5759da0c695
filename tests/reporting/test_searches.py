"""A search on the report's page and in its summary, and its pictures."""

import itertools
import json
from pathlib import Path

import pytest
from PIL import Image

from pipeline import paths
from pipeline.errors import PipelineError
from pipeline.params import Choices, Range, Search
from pipeline.reporting import contents, landscape, page, summary
from pipeline.training.search import Trial

ENTRY = Search.model_validate(
    {
        "run": "net",
        "model": "classification/resnet",
        "dataset": "digits",
        "inputs": "raw/digits",
        "space": {
            "training.lr": {"low": 1e-4, "high": 1.0, "log": True},
            "model_params.layers": {"choices": [[1, 1], [2, 2]]},
            "training.momentum": {"choices": [0.0, 0.9]},
        },
        "method": "random",
        "trials": 4,
        "metric": "val_top1",
    }
)
TRIALS = [
    Trial(number, state, value, 1, {"training.lr": rate, "model_params.layers": layers, "training.momentum": momentum})
    for number, (state, value, rate, layers, momentum) in enumerate(
        [
            ("complete", 0.5, 1e-4, [1, 1], 0.0),
            ("complete", 0.9, 1e-2, [2, 2], 0.9),
            ("pruned", 0.2, 1e-1, [1, 1], 0.9),
            ("diverged", None, 1.0, [2, 2], 0.0),
        ]
    )
]


def test_pictures_are_small_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    drawn = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        landscape.draw(tmp_path / name, ENTRY, TRIALS, TRIALS[1])
        drawn.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert drawn[0] == drawn[1]
    assert sorted(drawn[0]) == ["history.png", "landscape.png", "slices.png"]
    assert all(len(content) < 200_000 for content in drawn[0].values())


def test_a_choice_is_drawn_as_it_is_and_never_read_as_a_formula(tmp_path: Path) -> None:
    key = "model_params.kind"
    one = ENTRY.model_copy(update={"space": {key: Choices(choices=["a $x_{$", "b"])}})
    trials = [Trial(t.number, t.state, t.value, t.epochs, {key: "a $x_{$"}) for t in TRIALS]
    landscape.draw(tmp_path, one, trials, trials[1])
    assert (tmp_path / "slices.png").is_file()


def test_the_landscape_shows_every_pair_of_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = {f"training.{key}": Range(low=0.1, high=1.0) for key in ("momentum", "weight_decay", "l1")}
    entry = ENTRY.model_copy(update={"space": {"training.lr": ENTRY.space["training.lr"], **more}})
    values = {"training.lr": 1e-2, **dict.fromkeys(more, 0.5)}
    trials = [Trial(t.number, t.state, t.value, t.epochs, values) for t in TRIALS]
    shown = []
    monkeypatch.setattr(landscape, "_scale", lambda axes, entry, key, which: shown.append((which, key)))
    landscape._landscape(tmp_path / "landscape.png", entry, trials, trials[1])
    across, up = ([key for side, key in shown if side == which] for which in "xy")
    assert list(zip(across, up, strict=True)) == list(itertools.combinations(entry.space, 2))
    with Image.open(tmp_path / "landscape.png") as image:
        assert image.height > image.width / 2, "two rows of three"


def test_a_search_over_one_option_has_no_landscape(tmp_path: Path) -> None:
    key = "model_params.layers"
    one = ENTRY.model_copy(update={"space": {key: ENTRY.space[key]}})
    trials = [Trial(t.number, t.state, t.value, t.epochs, {key: t.values[key]}) for t in TRIALS]
    landscape.draw(tmp_path, one, trials, trials[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.png", "slices.png"]


def test_values_stand_where_their_axis_has_them() -> None:
    # a number of a range by itself, a choice by its index
    assert [landscape._place(ENTRY, key, TRIALS[1]) for key in ENTRY.space] == [1e-2, 1.0, 1.0]


def test_the_page_and_the_summary_show_the_best_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = paths.search_report("rates")
    (folder / "pictures").mkdir(parents=True)
    Image.new("L", (4, 3)).save(folder / "pictures/slices.png")
    best = {"run": "net", "params": {"training.lr": 0.003487, "model_params.layers": [2, 2]}, "command": "dvc exp run"}
    (folder / "best.json").write_text(json.dumps(best))
    metrics = {"best_val_top1": 0.9, "trials": 4, "pruned": 1, "explained": [["training.lr", 0.95]], "protocol": []}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    found = contents._read_search("rates")
    assert found.best == {"training.lr": "0.003487", "model_params.layers": "[2, 2]"}
    everything = contents.Contents({}, [], [], [], [], searches=[found])
    html = page.render(everything)
    assert "0.003487" in html
    assert "The metric over each option" in html
    assert "Share of the variance" in html
    row = next(line for line in summary.render(everything).splitlines() if line.startswith("| rates "))
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        "rates",
        "net",
        r"training.lr 0.003487, model\_params.layers \[2, 2\]",
        "0.900",
        "4",
    ]
    (folder / "best.json").unlink()
    with pytest.raises(PipelineError, match=r"best\.json: no such file"):
        contents._read_search("rates")
