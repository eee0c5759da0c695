import importlib
import inspect
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from pipeline.errors import ParamsError
from pipeline.models import heads
from pipeline.params import check_options

FOLDER = Path(heads.__file__).parent
PARAMS = {
    "linear": {"c": 0.5},
    "mlp": {"hidden": 9, "epochs": 30},
    "knn": {"neighbours": 4},
    "svm": {"c": 2.0},
    "forest": {"trees": 8},
    "softmax": {"l2": 0.01},
    "logistic": {"l2": 0.01},
    "hinge": {"l2": 0.01},
}
DESCENDING = ["softmax", "logistic", "hinge"]
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
CASES = {"three classes": [0, 1, 2], "two classes": [0, 1], "one of four absent": [0, 2, 3], "two of four": [1, 3]}
NUM_CLASSES = {"three classes": 3, "two classes": 2, "one of four absent": 4, "two of four": 4}


def data(present, num=90, dimension=7):
    """Overlapping clouds of unlike scales, one per class; one feature is constant."""
    rng = np.random.default_rng(0)
    labels = np.array(present)[np.arange(num) % len(present)]
    centres = rng.normal(0, 1.0, (5, dimension))
    features = (centres[labels] + rng.normal(0, 1, (num, dimension))) * rng.uniform(0.1, 9, dimension) + 3
    features[:, -1] = 4.0
    return features[:60].astype(np.float32), labels[:60], features[60:].astype(np.float32)


def reference(name, model, present, num_classes):
    """scikit-learn's own probabilities in K columns; an absent class has 0."""
    train, labels, test = data(present)
    scaler = StandardScaler().fit(train)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(scaler.transform(train), labels)
    result = np.zeros((len(test), num_classes))
    result[:, model.classes_] = model.predict_proba(scaler.transform(test))
    return result


def scores(name, present, num_classes, **model_params):
    head = importlib.import_module(f"pipeline.models.heads.{name}")
    train, labels, test = data(present)
    state = head.fit(train, labels, num_classes, 3, **model_params)
    return head.scores(state, test)


def test_every_head_is_tested():
    assert sorted(PARAMS) == NAMES, "a file in models/heads has no row in PARAMS, or a row no file"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("linear", lambda: LogisticRegression(C=0.5, max_iter=500)),
        ("mlp", lambda: MLPClassifier((9,), alpha=0.0001, max_iter=30, random_state=3)),
        ("knn", lambda: KNeighborsClassifier(4, weights="distance")),
    ],
)
def test_probabilities_are_those_of_scikit_learn(name, model, case):
    want = reference(name, model(), CASES[case], NUM_CLASSES[case])
    # the standardised features are float32 here and float64 there, and training carries the difference on
    assert scores(name, CASES[case], NUM_CLASSES[case], **PARAMS[name]) == pytest.approx(want, abs=2e-4)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_svm_scores_are_the_distances_of_one_machine_per_class(kernel, case):
    train, labels, test = data(CASES[case])
    scaler = StandardScaler().fit(train)
    found = scores("svm", CASES[case], NUM_CLASSES[case], c=2.0, kernel=kernel)
    for label in range(NUM_CLASSES[case]):
        if label not in CASES[case]:
            assert (found[:, label] < -1e8).all()
            continue
        machine = SVC(C=2.0, kernel=kernel, gamma=1 / 7).fit(scaler.transform(train), labels == label)
        assert found[:, label] == pytest.approx(machine.decision_function(scaler.transform(test)), abs=5e-3)


@pytest.mark.parametrize("name", NAMES)
def test_a_head_tells_clouds_apart_and_gives_the_same_bytes_again(name):
    head = importlib.import_module(f"pipeline.models.heads.{name}")
    rng = np.random.default_rng(1)
    labels = np.arange(60) % 3
    features = (np.eye(3)[labels] * 8 + rng.normal(0, 1, (60, 3))).astype(np.float32)
    states = [head.fit(features[:45], labels[:45], 3, 0) for _ in range(2)]
    assert {k: v.tobytes() for k, v in states[0].items()} == {k: v.tobytes() for k, v in states[1].items()}
    found = head.scores(states[0], features[45:])
    assert found.dtype == np.float32
    assert (found.argmax(1) == labels[45:]).all()
    if head.PROBABILITIES:
        assert found.sum(1) == pytest.approx(np.ones(15), abs=1e-6)
        assert found.min() >= 0


def test_neighbours_are_at_most_the_training_images():
    knn = importlib.import_module("pipeline.models.heads.knn")
    state = knn.fit(np.array([[0.0], [2.0]], np.float32), np.array([0, 1]), 2, 0, neighbours=5)
    # scaled to -1 and 1; 0.5 is scaled to -0.5: distances 0.5 and 1.5, weights 2 and 2/3, shares 3/4 and 1/4
    assert knn.scores(state, np.array([[0.5]], np.float32)) == pytest.approx(np.array([[0.75, 0.25]]))


def test_scaling_by_hand():
    state = heads.scaling(np.array([[1.0, 5], [3, 5]], np.float32))
    assert state["mean"].tolist() == [2, 5]
    assert state["scale"].tolist() == [1, 1]  # std 1; a constant feature stays
    assert heads.features_scaled(state, np.array([[4.0, 6]])).tolist() == [[2, 1]]


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_a_constant_feature_keeps_its_scale_though_its_mean_is_rounded(power):
    features = np.full((100, 2), 0.1, np.float32)  # whose sum by float32 is not 10
    assert features.std(0).all()
    assert heads.scaling(features, power)["scale"].tolist() == [1, 1]
    features[0] = 0.1 + 1e-3
    assert (heads.scaling(features, power)["scale"] < 1e-3).all()
    tiny = np.array([[0.0], [1e-30]], np.float32)  # whose square float32 does not hold
    assert heads.scaling(tiny)["scale"].tolist() == [1]


def test_softmax_of_large_scores_does_not_overflow():
    assert heads.as_probabilities(np.array([[1000.0, 1000.0, -1e9]])).tolist() == [[0.5, 0.5, 0.0]]


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("softmax", np.log(np.exp(-1) + 1 + np.exp(2.5)) - 0),
        ("logistic", np.log1p(np.exp(-1)) + np.log1p(np.exp(-0)) + np.log1p(np.exp(2.5))),
        ("hinge", 0 + max(0, -1 - 0 + 1) + max(0, 2.5 - 0 + 1)),
    ],
)
def test_losses_by_hand(name, loss):
    head = importlib.import_module(f"pipeline.models.heads.{name}")
    # scores -1, 0 and 2.5, the second class is true
    assert head.losses(np.array([[-1.0, 0, 2.5]]), np.array([1])) == pytest.approx([loss])


@pytest.mark.parametrize("name", DESCENDING)
def test_gradients_are_those_of_the_mean_loss(name):
    head = importlib.import_module(f"pipeline.models.heads.{name}")
    rng = np.random.default_rng(0)
    scores, labels, step = rng.normal(0, 2, (6, 4)), rng.integers(0, 4, 6), 1e-6
    numeric = np.empty_like(scores)
    for place in np.ndindex(*scores.shape):
        moved = np.zeros_like(scores)
        moved[place] = step
        numeric[place] = (head.losses(scores + moved, labels) - head.losses(scores - moved, labels)).mean() / (2 * step)
    assert head.gradient(scores, labels) == pytest.approx(numeric, abs=1e-8)


@pytest.mark.parametrize(
    ("penalty", "l1", "l2", "options"),
    [
        ("ridge", 0.0, 0.05, {}),
        ("lasso", 0.03, 0.0, {"solver": "saga", "l1_ratio": 1.0}),
        ("elastic net", 0.02, 0.05, {"solver": "saga", "l1_ratio": 0.02 / (0.02 + 2 * 0.05)}),
    ],
)
def test_softmax_with_each_penalty_ends_where_scikit_learn_does(penalty, l1, l2, options):
    train, labels, _ = data([0, 1, 2])
    head = importlib.import_module("pipeline.models.heads.softmax")
    state = head.fit(train, labels, 3, 0, lr=0.5, epochs=4000, batch_size=60, l1=l1, l2=l2)
    # theirs: N C * mean loss + l1_ratio |w|_1 + (1 - l1_ratio) / 2 |w|^2; ours divided by l1 + 2 l2
    model = LogisticRegression(C=1 / (60 * (l1 + 2 * l2)), max_iter=20000, tol=1e-9, **options)
    model.fit(StandardScaler().fit_transform(train.astype(np.float64)), labels)
    assert state["weight"] == pytest.approx(model.coef_, abs=2e-3)
    if l1:
        assert (state["weight"] == 0).sum() == (np.abs(model.coef_) < 1e-6).sum() > 3


def test_logistic_regression_of_each_class_ends_where_scikit_learn_does():
    train, labels, _ = data([0, 1, 2])
    head = importlib.import_module("pipeline.models.heads.logistic")
    state = head.fit(train, labels, 3, 0, lr=0.5, epochs=4000, batch_size=60, l2=0.02)
    for label in range(3):
        model = LogisticRegression(C=1 / (60 * 2 * 0.02), tol=1e-9, max_iter=2000)
        model.fit(StandardScaler().fit_transform(train.astype(np.float64)), labels == label)
        assert state["weight"][label] == pytest.approx(model.coef_[0], abs=1e-3)
        assert state["bias"][label] == pytest.approx(model.intercept_[0], abs=1e-3)


def test_hinge_stops_once_every_margin_holds():
    head = importlib.import_module("pipeline.models.heads.hinge")
    features = np.array([[-1.0], [1.0]], np.float32)
    # scores start at 0: each margin is missed by 1, w moves by (-1/2, 1/2) * lr a step of both, until w1 - w0 = 1
    state = head.fit(features, np.array([0, 1]), 2, 0, lr=0.4, epochs=50, batch_size=2)
    lead = head.scores(state, features)[[0, 1], [0, 1]] - head.scores(state, features)[[0, 1], [1, 0]]
    assert lead.min() >= 1
    longer = head.fit(features, np.array([0, 1]), 2, 0, lr=0.4, epochs=51, batch_size=2)
    assert longer["weight"] == pytest.approx(state["weight"], abs=0.02)


def test_forest_answers_as_scikit_learn_does():
    from sklearn.ensemble import RandomForestClassifier

    train, labels, test = data([0, 2, 3])
    head = importlib.import_module("pipeline.models.heads.forest")
    state = head.fit(train, labels, 4, 3, trees=20, min_leaf=3, max_depth=4)
    model = RandomForestClassifier(20, min_samples_leaf=3, max_depth=4, random_state=3).fit(train, labels)
    want = np.zeros((len(test), 4))
    want[:, model.classes_] = model.predict_proba(test)
    assert head.scores(state, test) == pytest.approx(want, abs=1e-6)
    assert len(np.unique(want[:, 0])) > 5


@pytest.mark.parametrize("name", DESCENDING)
def test_a_class_without_samples_is_never_chosen(name):
    found = scores(name, [0, 2, 3], 4)
    assert (found.argmax(1) != 1).all()
    if importlib.import_module(f"pipeline.models.heads.{name}").PROBABILITIES:
        assert (found[:, 1] == 0).all()


@pytest.mark.parametrize(("num_classes", "label"), [(1, 0), (3, 1)])
@pytest.mark.parametrize("name", NAMES)
def test_a_single_class_is_the_answer_to_everything(name, num_classes, label):
    train, _, test = data([0, 1])
    head = importlib.import_module(f"pipeline.models.heads.{name}")
    found = head.scores(head.fit(train, np.full(len(train), label), num_classes, 3), test)
    assert found.shape == (len(test), num_classes)
    assert (found.argmax(1) == label).all()
    if head.PROBABILITIES:
        assert found[:, label] == pytest.approx(1)


@pytest.mark.parametrize("name", NAMES)
def test_a_number_that_no_head_can_be_fitted_with_is_refused(name):
    fit = importlib.import_module(f"pipeline.models.heads.{name}").fit
    options = inspect.signature(fit).parameters.values()
    defaults = {option.name: option.default for option in options if option.kind is option.KEYWORD_ONLY}
    check_options(fit, defaults, "here")
    for key in (key for key, value in defaults.items() if not isinstance(value, str)):
        with pytest.raises(ParamsError, match=rf"here\.{key}: should be greater than"):
            check_options(fit, {key: -1}, "here")
    if "power" in defaults:
        with pytest.raises(ParamsError, match=r"here\.power: should be less than or equal to 1"):
            check_options(fit, {"power": 2.0}, "here")
