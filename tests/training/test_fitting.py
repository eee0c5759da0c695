from dataclasses import replace

import numpy as np
import pytest

from pipeline import paths
from pipeline.data import features as feature_files
from pipeline.data.features import FeatureSplit
from pipeline.data.store import to_row, writing
from pipeline.errors import ParamsError, PipelineError
from pipeline.models.heads import knn, linear, softmax
from pipeline.params import ClassificationEvaluation, Prediction, RegressionEvaluation, Run
from pipeline.structures import DatasetInfo, Sample
from pipeline.training import fitting
from pipeline.training.fitted import of_extractor
from pipeline.training.seeding import derive

PLACE = paths.features("toy")


def split_of(num, seed, classes=3):
    """Points of a plane whose class is told by the first number alone; the second is loud noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num) % classes
    features = np.column_stack([labels + rng.normal(0, 0.3, num), rng.normal(0, 30, num)]).astype(np.float32)
    ids = [f"{seed}_{i}" for i in range(num)]
    return FeatureSplit(ids, features, labels, (2 * features[:, 0] + 1).astype(np.float32))


def run_of(model, **model_params):
    evaluation = ClassificationEvaluation(top_k=2) if model.startswith("heads/") else RegressionEvaluation()
    return Run(
        model=model, dataset="toy", inputs="features/toy", model_params=model_params, training=None,
        prediction=Prediction(split="test", batch_size=4), evaluation=evaluation,
    )  # fmt: skip


@pytest.fixture
def splits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    splits = {"train": split_of(60, 0), "val": split_of(30, 1), "test": split_of(30, 2)}
    info = DatasetInfo("toy", ["classification"], ["red", "green", "blue"], 3, "none", "none", "made here")
    feature_files.write(PLACE, info, {"backbone": "none"}, splits)
    store(info, splits)
    return splits


def store(info, splits, group_of=lambda image_id: None):
    """Writes the images that the features are of."""
    with writing(paths.raw("toy"), info) as writer:
        for name, split in splits.items():
            for image_id in split.image_ids:
                if "~" not in image_id:
                    image = np.zeros((2, 2, 3), np.uint8)
                    writer.add(name, to_row(Sample(image_id, f"{image_id}.png", image, group=group_of(image_id))))


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


def test_without_lists_the_model_is_fitted_to_train_as_it_is(splits):
    checkpoint, rows, _ = fitting.fitted(run_of("heads/linear", c=0.5), "toy", 0)
    train = splits["train"]
    assert same(checkpoint.arrays, linear.fit(train.features, train.labels, 3, 0, c=0.5))
    assert checkpoint.model_params == {"c": 0.5}
    assert [sorted(row) for row in rows] == [["epoch", "loss", "top1", "val_loss", "val_top1"]]


def test_a_listed_option_is_chosen_on_val(splits, capsys):
    checkpoint, rows, chosen_row = fitting.fitted(run_of("heads/knn", neighbours=[1, 15, 60]), "toy", 0)
    train, val = splits["train"], splits["val"]
    found = []
    for neighbours in (1, 15, 60):
        state = knn.fit(train.features, train.labels, 3, 0, neighbours=neighbours)
        found.append(float((knn.scores(state, val.features).argmax(1) == val.labels).mean()))
    assert [row["val_top1"] for row in rows] == found
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    chosen = (1, 15, 60)[int(np.argmax(found))]
    assert checkpoint.model_params == {"neighbours": chosen}
    assert int(checkpoint.arrays["neighbours"]) == chosen
    assert chosen_row == rows[int(np.argmax(found))] != rows[-1]
    assert f"toy: neighbours {chosen}: " in capsys.readouterr().out


def test_the_least_loss_is_chosen_where_that_is_asked_for(splits):
    options = {"neighbours": [1, 9], "folds": 5}
    _, rows, _ = fitting.fitted(run_of("heads/knn", **options), "toy", 0)
    chosen = [
        fitting.fitted(run_of("heads/knn", **options, choose_by=by), "toy", 0)[0].model_params["neighbours"]
        for by in ("top1", "loss")
    ]
    worst_first = sorted((1, 9), key=lambda k: -rows[(1, 9).index(k)]["val_loss"])
    assert chosen[1] == worst_first[-1] == 9  # a single neighbour that is wrong is wrong without a doubt
    assert chosen[0] == (1, 9)[int(np.argmax([row["val_top1"] for row in rows]))]


def test_every_combination_is_tried_and_the_last_list_changes_fastest(splits):
    model_params = {"c": [0.1, 1.0], "power": [1.0, 0.5], "max_iter": 50}
    tried, _ = fitting.plan(linear.fit, model_params, "runs.toy.model_params")
    assert [(one["c"], one["power"]) for one in tried] == [(0.1, 1.0), (0.1, 0.5), (1.0, 1.0), (1.0, 0.5)]
    assert all(one["max_iter"] == 50 for one in tried)


@pytest.fixture
def seen(monkeypatch):
    """What is fitted to and what is held out, of each fold that a later fit tries."""
    parts = []
    monkeypatch.setattr(
        fitting.Classes,
        "row",
        lambda self, arrays, train, val: parts.append((train, val)) or {"val_top1": 1, "val_loss": 0},
    )
    return parts


def test_folds_hold_out_each_sample_of_train_and_val_once(splits, seen):
    fitting.fitted(run_of("heads/knn", folds=5), "toy", 0)
    both = splits["train"].image_ids + splits["val"].image_ids
    assert sorted(i for _, val in seen for i in val.image_ids) == sorted(both)
    for train, val in seen:
        assert sorted(train.image_ids + val.image_ids) == sorted(both)
        assert np.bincount(val.labels).tolist() == [6, 6, 6]  # 90 samples, 30 of a class, in fifths


def test_folds_are_of_equal_size_in_every_class_and_differ_by_seed():
    labels = np.array([0] * 10 + [1] * 7)
    units = [f"image {number}" for number in range(17)]
    fold = fitting.folds_of(labels, units, 5, 0)
    assert sorted(np.bincount(fold).tolist()) == [3, 3, 3, 4, 4]
    assert np.bincount(fold[:10]).tolist() == [2] * 5
    assert set(np.bincount(fold[10:])) == {1, 2}
    assert np.array_equal(fold, fitting.folds_of(labels, units, 5, 0))
    assert not np.array_equal(fold, fitting.folds_of(labels, units, 5, 1))


def test_single_images_are_dealt_in_the_order_that_the_seed_draws():
    labels = np.array([1, 0, 1, 0, 0])
    order = np.random.default_rng(derive(3, "folds")).permutation(5)
    in_turn = [index for label in (0, 1) for index in order if labels[index] == label]
    fold = fitting.folds_of(labels, list("abcde"), 2, 3)
    assert [fold[index] for index in in_turn] == [0, 1, 0, 1, 0]


def test_a_group_is_dealt_by_its_most_frequent_label():
    labels = np.array([2, 0, 2, 1, 0, 1])
    assert fitting._most_frequent(labels, np.array([0, 0, 0, 1, 1, 2])).tolist() == [2, 0, 1]


def test_neither_a_copy_nor_part_of_a_group_is_held_out(splits, seen):
    """Each image of train has a copy; every third image of train and val is in one of ten groups."""
    train, val = splits["train"], splits["val"]
    copies = replace(train, image_ids=[f"{image_id}~1" for image_id in train.image_ids])
    info, description = feature_files.describe(PLACE)
    feature_files.write(PLACE, info, description, {"train": fitting.joined(train, copies), "val": val})

    def unit(image_id):
        number = int(image_id.partition("~")[0].partition("_")[2])
        return f"group {number % 10}" if number % 3 == 0 else image_id.partition("~")[0]

    def group_of(image_id):
        return unit(image_id).removeprefix("group ") if unit(image_id).startswith("group ") else None

    store(info, splits, group_of)
    fitting.fitted(run_of("heads/knn", folds=5), "toy", 0)
    assert sorted(i for _, left in seen for i in left.image_ids) == sorted(train.image_ids + val.image_ids)
    for fitted_to, left in seen:
        assert not set(map(unit, left.image_ids)) & set(map(unit, fitted_to.image_ids))
        num_copies = sum("~" in image_id for image_id in fitted_to.image_ids)
        num_of_train = sum(image_id.startswith("0_") for image_id in left.image_ids)
        assert num_copies == 60 - num_of_train
        assert len(fitted_to.image_ids) + len(left.image_ids) == 150 - num_of_train


def test_retraining_fits_the_chosen_options_to_train_and_val(splits):
    options = {"l2": [0.001, 10.0], "epochs": 5, "retrain": True}
    checkpoint, _, _ = fitting.fitted(run_of("heads/softmax", **options), "toy", 0)
    both = fitting.joined(splits["train"], splits["val"])
    assert checkpoint.model_params == {"l2": 0.001, "epochs": 5}
    assert same(checkpoint.arrays, softmax.fit(both.features, both.labels, 3, 0, l2=0.001, epochs=5))


def test_a_regression_logs_its_error_by_step_and_is_chosen_by_it(splits):
    checkpoint, rows, chosen = fitting.fitted(run_of("regression/linear", steps=50), "toy", 0)
    losses = [row["loss"] for row in rows]
    assert chosen == rows[-1]
    assert [row["epoch"] for row in rows] == list(range(51))
    assert losses == sorted(losses, reverse=True)
    assert losses[0] == pytest.approx(float((splits["train"].targets.astype(float) ** 2).mean()))
    checkpoint, rows, chosen = fitting.fitted(run_of("regression/linear", l2=[1.0, 0.0], folds=3), "toy", 0)
    assert chosen == rows[1]
    assert checkpoint.model_params == {"l2": 0.0}  # the targets have no noise
    assert rows[1]["val_loss"] < rows[0]["val_loss"]


def test_what_the_backbone_has_learnt_comes_along(splits, tmp_path):
    info, description = feature_files.describe(PLACE)
    feature_files.write(PLACE, info, description, splits, {"codebook": np.eye(2, dtype=np.float32)})
    checkpoint, _, _ = fitting.fitted(run_of("heads/knn"), "toy", 0)
    assert same(of_extractor(checkpoint.arrays), {"codebook": np.eye(2, dtype=np.float32)})


@pytest.mark.parametrize("model", ["heads/linear", "heads/svm", "heads/mlp", "heads/knn", "heads/hinge"])
def test_one_class_alone_is_refused_in_one_line(splits, model):
    alone = {name: split_of(9, seed, classes=1) for seed, name in enumerate(("train", "val"))}
    info, description = feature_files.describe(PLACE)
    feature_files.write(PLACE, info, description, alone)
    with pytest.raises(PipelineError, match=r"^\S+toy: all 9 samples are of class 'red', and heads/.*; fix: "):
        fitting.fitted(run_of(model), "toy", 0)


@pytest.mark.parametrize(
    ("model_params", "message"),
    [
        ({"cc": 1.0}, r"cc: unknown key; did you mean 'c'"),
        ({"c": [1.0, "x"]}, r"c: should be a valid number \('x'\)"),
        ({"c": []}, r"c: should be a valid number \(\[\]\)"),
        ({"folds": -1}, r"folds: should be greater than or equal to 0 \(-1\)"),
        ({"retrain": 1}, r"retrain: should be a valid boolean \(1\)"),
    ],
)
def test_a_wrong_option_is_named(splits, model_params, message):
    with pytest.raises(ParamsError, match=rf"runs.toy.model_params.{message}"):
        fitting.fitted(run_of("heads/linear", **model_params), "toy", 0)


def test_more_folds_than_samples_and_absent_truth_are_refused(splits):
    with pytest.raises(PipelineError, match=r"100 folds of 90 samples or groups; fix: folds from 2 to 90"):
        fitting.fitted(run_of("heads/knn", folds=100), "toy", 0)
    info, description = feature_files.describe(PLACE)
    bare = {name: FeatureSplit(split.image_ids, split.features, None) for name, split in splits.items()}
    feature_files.write(PLACE, info, description, bare)
    with pytest.raises(PipelineError, match="not every sample has a target, which regression/linear needs"):
        fitting.fitted(run_of("regression/linear"), "toy", 0)
    with pytest.raises(PipelineError, match="its images have no class labels, which heads/knn needs"):
        fitting.fitted(run_of("heads/knn"), "toy", 0)
