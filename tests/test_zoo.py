"""What the zoo keeps of a run: numbers, contrasts and a few pictures, below its size, with no link into nothing."""

import importlib.util
import json
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def zoo() -> ModuleType:
    script = Path(__file__).parent.parent / ".ci" / "zoo.py"
    spec = importlib.util.spec_from_file_location("zoo", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SUMMARY = """# Summary

| a | b |

## Pictures

**one**: Predictions next to the truth

![Predictions](runs/one/pictures/predictions.png)

**map**: Points

![Points](visualise/map/points.png)

## Data

licences
"""


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    folder = tmp_path / "reports"
    sizes = {
        "index.html": 10,
        "runs/one/metrics.json": 10,
        "runs/one/training.csv": 10,
        "runs/one/pictures/predictions.png": 10,
        "runs/one/pictures/templates.png": 10,
        "visualise/map/points.png": 10,
        "visualise/big/points.png": 200_001,
        "data/digits/pictures/labels.png": 10,
        "contrasts/depth.svg": 10,
        "searches/lr/best.json": 10,
    }
    for name, size in sizes.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * size)
    (folder / "runs/one/metrics.json").write_text("{}")
    (folder / "summary.md").write_text(SUMMARY)
    content = {"depth": {"verdict": "shows"}, "width": {"verdict": "no evidence"}, "rate": {"verdict": "shows"}}
    (folder / "contrasts/contrasts.json").write_text(json.dumps(content))
    return folder


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_numbers_and_pictures_that_not_every_run_has_are_kept(zoo: ModuleType, reports: Path, tmp_path: Path) -> None:
    (tmp_path / "kept/runs/gone").mkdir(parents=True)
    left_out = zoo.collect(reports, tmp_path / "kept")
    assert names(tmp_path / "kept") == {
        "summary.md",
        "runs/one/metrics.json",
        "runs/one/pictures/templates.png",
        "visualise/map/points.png",
        "contrasts/contrasts.json",
        "contrasts/depth.svg",
        "searches/lr/best.json",
    }
    assert left_out == ["visualise/big/points.png: left out (200,001 bytes)"]
    assert not (tmp_path / "kept/runs/gone").exists()
    assert zoo.verdicts(tmp_path / "kept") == "2 shows, 1 no evidence"


def test_the_summary_links_what_is_kept_and_nothing_else(zoo: ModuleType, reports: Path, tmp_path: Path) -> None:
    zoo.collect(reports, tmp_path / "kept")
    text = (tmp_path / "kept/summary.md").read_text()
    assert re.findall(r"\]\(([^)]*)\)", text) == ["visualise/map/points.png", "runs/one/pictures/templates.png"]
    assert "**map**: Points" in text
    assert text.index("| a | b |") < text.index("## Pictures") < text.index("## Data")
    assert text.endswith("licences\n")


def test_runs_that_are_no_better_than_no_learning_are_named(zoo: ModuleType, tmp_path: Path) -> None:
    """Of 40 images 20 are of the most frequent class: 0.5."""
    counts = [{"class": "a", "num_images": 20}, {"class": "b", "num_images": 20}]
    found = {
        "sure": {"top1": 0.8, "per_class": counts, "intervals": [["top1", 0.6, 0.9]]},
        "un_sure": {"top1": 0.55, "per_class": counts, "intervals": [["top1", 0.45, 0.7]]},
        "line": {"rmse": 50.0, "rmse_mean": 70.0, "intervals": [["rmse", 45.0, 60.0]]},
        "flat": {"rmse": 70.0, "rmse_mean": 70.0, "intervals": []},
        "boxes": {"map50": 0.3},
    }
    for name, content in found.items():
        place = tmp_path / "runs" / name / "metrics.json"
        place.parent.mkdir(parents=True)
        place.write_text(json.dumps(content))
    text = zoo.baselines(tmp_path)
    assert "of 2 of 4 runs is better" in text
    assert [line for line in text.splitlines() if line.startswith("- ")] == [
        "- flat (70, without learning 70)",
        "- un\\_sure (0.55, without learning 0.5)",
    ]


def test_the_whole_stays_below_its_size(zoo: ModuleType, reports: Path, tmp_path: Path) -> None:
    for index in range(20):
        place = reports / f"visualise/v{index:02}/points.png"
        place.parent.mkdir()
        place.write_bytes(b"x" * 190_000)
    left_out = zoo.collect(reports, tmp_path / "kept")
    total = sum(path.stat().st_size for path in (tmp_path / "kept").rglob("*") if path.is_file())
    assert 2_800_000 < total <= 3_000_000 + 2_000  # links to pictures come on top
    assert len(left_out) == 1 + 20 - 15


def commit(folder: Path) -> None:
    author = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "core.hooksPath=/dev/null")
    for words in (["add", "-A"], ["commit", "-qm", "state"]):
        subprocess.run(["git", *author, *words], cwd=folder, check=True)


def test_a_copy_takes_new_code_and_keeps_its_results(zoo: ModuleType, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for name in (
        "pipeline/a.py",
        "pipeline/b.py",
        "dvc.yaml",
        "dvc.lock",
        "params.yaml",
        "reports/runs/one/metrics.json",
    ):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("1")
    subprocess.run(["git", "init", "-q"], cwd=source, check=True)
    commit(source)
    (source / "recipe.yaml").write_text("recipe")
    zoo.copy(source, target, source / "recipe.yaml")
    assert {name for name in names(target) if not name.startswith(".git/")} == {
        "pipeline/a.py",
        "pipeline/b.py",
        "dvc.yaml",
        "params.yaml",
    }
    assert (target / "params.yaml").read_text() == "recipe"
    (target / "dvc.lock").write_text("of the copy")
    (source / "pipeline/a.py").write_text("2")
    (source / "pipeline/b.py").unlink()
    commit(source)
    zoo.copy(source, target, source / "recipe.yaml")
    assert (target / "pipeline/a.py").read_text() == "2"
    assert not (target / "pipeline/b.py").exists()
    assert (target / "dvc.lock").read_text() == "of the copy"


RECIPE = """runs:
  # row 3: small batches
  one: # expect what reports/zoo says, on 2 CPU cores
    model: x
  two: # expect top1 0.1
    model: x

contrasts:
  depth: # 1 against 2: no evidence
    idea: one
    foil: majority
  width:
    idea: one

visualisations:
  one:
    module: x
"""


def test_comments_of_a_recipe_say_what_came_of_it(zoo: ModuleType, reports: Path) -> None:
    (reports / "runs/one/metrics.json").write_text(json.dumps({"top1": 0.91234, "log_loss": 0.25, "ece": None}))
    judged = {"idea": "one", "foil": "majority", "metric": "log_loss", "verdict": "shows"}
    content = {"depth": {**judged, "idea_value": 0.25, "foil_value": 2.3}}
    (reports / "contrasts/contrasts.json").write_text(json.dumps(content))
    (reports.parent / "data").mkdir()
    costs = [("train", 7.2), ("train", 5.2), ("predict", 2.0), ("evaluate", 3.0)]
    lines = [json.dumps({"command": verb, "name": "one", "seconds": seconds}) for verb, seconds in costs]
    (reports.parent / "data/ledger.jsonl").write_text("\n".join(lines))
    noted = zoo.noted(RECIPE, reports.parent).splitlines()
    assert (
        noted[2] == "  one: # expect top1 0.912, log_loss 0.25 on 2 CPU cores in 10 s"
    )  # 5.2 + 2 + 3, the last of each
    assert noted[4] == "  two: # expect top1 0.1"  # not run
    assert noted[8] == "  depth: # 0.25 against 2.3: shows"
    assert noted[11] == "  width:"
    assert noted[14:] == RECIPE.splitlines()[14:]
