import importlib
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

from pipeline.models import heads

FOLDER = Path(heads.__file__).parent
PARAMS = {"linear": {"c": 0.5}, "mlp": {"hidden": 9, "epochs": 30}, "knn": {"neighbours": 4}, "svm": {"c": 2.0}}
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


def test_softmax_of_large_scores_does_not_overflow():
    assert heads.softmax(np.array([[1000.0, 1000.0, -1e9]])).tolist() == [[0.5, 0.5, 0.0]]
