import importlib
import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline import params as schema
from pipeline.lint import checks
from pipeline.lint import graph as graphs
from pipeline.params import check_options
from pipeline.training import fitting

SILHOUETTES = Path(__file__).parent.parent.parent / "shared/data/animal_silhouettes"
RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.yaml"))


def with_given(prepare, options):
    """The options of params.yaml and what the stage adds to them."""
    given = {"seed": 0, "inputs": "somewhere"}
    return {key: value for key, value in given.items() if key in inspect.signature(prepare).parameters} | options


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipe_is_a_complete_params_file(recipe):
    params = schema.load(recipe)
    assert params.runs or params.generators
    used = {params.dataset_of(learner.inputs) for learner in params.learners.values()}
    assert used == set(params.datasets), "a dataset that nothing is learned from"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_options_of_a_recipe_are_those_of_its_sources_and_models(recipe):
    params = schema.load(recipe)
    for name, dataset in params.datasets.items():
        prepare = importlib.import_module(f"pipeline.data.datasets.{dataset.source}").prepare
        check_options(prepare, with_given(prepare, dataset.options), f"datasets.{name}.options")
    for name, learner in params.learners.items():
        model = importlib.import_module(f"pipeline.models.{learner.model.replace('/', '.')}")
        where = f"runs.{name}.model_params"
        if schema.is_fitted(learner.model):
            fitting.plan(model.fit, learner.model_params, where)
        else:
            check_options(model.build, learner.model_params, where)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_stages_of_a_recipe_depend_on_all_code_that_they_run(recipe, tmp_path, monkeypatch):
    shutil.copy(recipe, tmp_path / "params.yaml")
    shutil.copy(recipe.parent.parent / "dvc.yaml", tmp_path)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    assert list(checks.imports(graphs.read())) == []


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_run_of_a_recipe_says_what_to_expect(recipe):
    lines = recipe.read_text(encoding="utf-8").splitlines()
    params = schema.load(recipe)
    for name in params.learners:
        line = next(line for line in lines if line.startswith(f"  {name}:"))
        assert "not measured here" in line or "expect " in line, line
        assert "GPU" in line or "CPU" in line, line


def test_the_zoo_has_an_entry_for_every_row_of_the_course():
    text = next(path for path in RECIPES if path.stem == "zoo").read_text(encoding="utf-8")
    named = re.findall(r"\brows? (\d+(?:(?:, | and )\d+)*)", text)
    assert {int(row) for rows in named for row in re.findall(r"\d+", rows)} == set(range(1, 24))


def test_each_contrast_of_the_zoo_is_made_and_claims_something():
    params = schema.load(next(path for path in RECIPES if path.stem == "zoo"))
    claims = [entry.claim for entry in params.contrasts.values()]
    assert len(claims) >= 60
    assert all(claim.endswith(".") and len(claim.split()) > 4 for claim in claims)


@pytest.mark.slow
@pytest.mark.skipif(not SILHOUETTES.is_dir(), reason="no animal_silhouettes beside the project")
def test_the_runs_of_cifar10_fit_other_small_pictures_unchanged(tmp_path, monkeypatch):
    """An epoch of each on 25 silhouettes of each of ten animals, through all stages to the report."""
    monkeypatch.chdir(tmp_path)
    for folder in filter(Path.is_dir, SILHOUETTES.iterdir()):
        (tmp_path / "animals" / folder.name).mkdir(parents=True)
        for picture in sorted(folder.iterdir())[:25]:
            shutil.copy(picture, tmp_path / "animals" / folder.name)
    content = YAML(typ="safe").load(next(path for path in RECIPES if path.stem == "cifar10"))
    content["defaults"] |= {"device": "cpu", "threads": 1}
    content["datasets"]["cifar10"] = {
        "source": "local",
        "inputs": "animals",
        "options": {"format": "imagefolder", "stratify": True},
    }
    content["features"]["cifar10_lite0"]["image_size"] = 64
    for run in content["runs"].values():
        if run["training"]:
            run["training"] |= {"epochs": 1, "warmup_epochs": 0.0}
    YAML().dump(content, Path("params.yaml"))
    params = schema.load()
    todo = [("download", "cifar10"), ("extract", "cifar10_lite0")]
    todo += [(verb, run) for run in params.runs for verb in ("train", "predict", "evaluate")]
    for verb, name in todo:
        importlib.import_module(f"pipeline.stages.{verb}").run(params, name)
    importlib.import_module("pipeline.stages.report").run(params)
    for name in params.runs:
        metrics = json.loads((Path("reports/runs") / name / "metrics.json").read_text())
        assert metrics["protocol"][3] == ["num_images", 38]
        assert 0 <= metrics["top1"] <= 1
    judged = json.loads(Path("reports/contrasts/contrasts.json").read_text())
    assert set(judged) == set(params.contrasts)
    assert judged["alexnet"]["foil_value"] == pytest.approx(0.1)
    assert judged["transfer"]["idea_value"] > 0.3  # features see an animal in a few silhouettes, by chance a tenth
