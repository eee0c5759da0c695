"""Templates of linear heads and the surface under gradient descent."""

import numpy as np
import pytest

from pipeline import paths
from pipeline.errors import ParamsError
from pipeline.models.heads import softmax
from pipeline.models.regression import linear
from pipeline.params import ClassificationEvaluation, Features, Params, Prediction, Run, Visualisation
from pipeline.structures import DatasetInfo
from pipeline.training.checkpoint import Checkpoint, save
from pipeline.visualise import descent, templates


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def info(**more):
    return DatasetInfo("toy", ["classification"], ["upper", "lower"], 1, "none", "none", "made here", **more)


def halves(num=60):
    """Images of 4x4 pixels of noise with the upper or the lower half bright."""
    rng = np.random.default_rng(0)
    labels = np.arange(num) % 2
    images = rng.uniform(0, 0.5, (num, 4, 4))
    images[labels == 0, :2] += 0.5
    images[labels == 1, 2:] += 0.5
    return images.reshape(num, 16).astype(np.float32), labels


def entry(name):
    return Visualisation(
        module="templates", method="templates", dataset="toy", inputs=f"checkpoints/{name}", options={}
    )


def params(backbone="pixels"):
    run = Run(
        model="heads/softmax", dataset="toy", inputs="features/space", model_params={}, training=None,
        prediction=Prediction(split="test", batch_size=4), evaluation=ClassificationEvaluation(top_k=2),
    )  # fmt: skip
    space = Features(inputs="raw/toy", backbone=backbone, weights="none", image_size=4, batch_size=4)
    return Params.model_construct(runs={"run": run}, generators={}, features={"space": space})


def test_a_template_is_bright_where_its_class_is(folder):
    features, labels = halves()
    arrays = softmax.fit(features, labels, 2, 0)
    upper, lower = templates.pictures_of(arrays, 1)
    assert upper.shape == (4, 4, 1)
    assert upper[:2].min() > 127 > upper[2:].max()
    assert lower[2:].min() > 127 > lower[:2].max()
    save(paths.checkpoint("run"), Checkpoint("heads/softmax", {}, info(), arrays))
    title, caption = templates.templates(params(), entry("run"), folder)
    assert title == "Templates of run"
    assert "4 x 4 pixels" in caption
    assert (folder / "templates.png").stat().st_size > 100


def test_a_template_by_hand():
    arrays = {"weight": np.array([[2.0, -2, 0, 1]])}
    # full, empty, grey, three quarters
    assert templates.pictures_of(arrays, 1)[0].ravel().tolist() == [255, 0, 128, 191]


def test_templates_of_anything_else_are_refused(folder):
    features, labels = halves()
    save(paths.checkpoint("run"), Checkpoint("heads/softmax", {}, info(), softmax.fit(features, labels, 2, 0)))
    with pytest.raises(ParamsError, match=r"checkpoints/run: templates are those of a linear head on pixels; fix: "):
        templates.templates(params("hog"), entry("run"), folder)


def regression(**options):
    rng = np.random.default_rng(0)
    features = rng.normal(3, 2, (50, 2)).astype(np.float32)
    targets = (1.5 * features[:, 0] + 4 + rng.normal(0, 1, 50)).astype(np.float32)
    arrays = linear.fit(features, targets, ["a", "b"], 0, **options)
    save(paths.checkpoint("run"), Checkpoint("regression/linear", {}, info(feature_names=["a", "b"]), arrays))
    return features[:, :1], targets, arrays


@pytest.mark.parametrize("normalise", [True, False])
def test_heights_and_bottom_are_those_of_the_data(normalise):
    features, targets, arrays = regression(columns=["a"], normalise=normalise, lr=0.02)
    scaled = (features[:, 0] - arrays["mean"][0]) / arrays["scale"][0]
    places = np.array([[0.0, 0.0], [1.0, -2.0], [3.0, 5.0]])
    want = [np.mean((slope * scaled + intercept - targets) ** 2) for slope, intercept in places]
    assert descent.errors_at(arrays, places) == pytest.approx(want, rel=1e-5)
    slope, intercept = np.polyfit(scaled.astype(np.float64), targets.astype(np.float64), 1)
    assert descent.bottom_of(arrays) == pytest.approx([slope, intercept], rel=1e-5)


def test_the_surface_is_one_picture_that_says_where_descent_ended(folder):
    _, _, arrays = regression(columns=["a"], steps=30)
    for _ in range(2):
        title, caption = descent.loss_surface(params(), entry("run"), folder)
    assert title == "Gradient descent of run"
    assert f"30 steps from 0 to slope {arrays['path'][-1][0]:.4g}" in caption
    first = (folder / "loss_surface.png").read_bytes()
    descent.loss_surface(params(), entry("run"), folder)
    assert (folder / "loss_surface.png").read_bytes() == first


def test_the_surface_of_two_features_is_refused(folder):
    regression()
    with pytest.raises(ParamsError, match=r"of a regression/linear on one feature, .*; fix: name a run with one of"):
        descent.loss_surface(params(), entry("run"), folder)
