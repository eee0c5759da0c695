import importlib
import inspect
from pathlib import Path

import pytest

from pipeline import params as schema
from pipeline.params import check_options
from pipeline.training import fitting

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
def test_every_run_of_a_recipe_says_what_to_expect(recipe):
    lines = recipe.read_text(encoding="utf-8").splitlines()
    params = schema.load(recipe)
    for name in params.learners:
        line = next(line for line in lines if line.startswith(f"  {name}:"))
        assert "not measured here" in line or "expect " in line, line
        assert "GPU" in line or "CPU" in line, line
