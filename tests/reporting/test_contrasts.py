"""Ideas beside their foils: what is planted is what is said, by the words and numbers of the report."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline import paths
from pipeline.errors import PipelineError
from pipeline.metrics import classification, comparison, regression
from pipeline.params import ClassificationEvaluation, Contrast, Params
from pipeline.reporting import contrasts
from pipeline.reporting.contents import read_contents
from pipeline.stages import report
from tests.conftest import HOSTILE, curve, run_entry, write

NUM_IMAGES, CLASSES = 200, ("bird", "cat", "dog", "eel")
LABELS = np.repeat(np.arange(4), (80, 60, 40, 20))


def answers(right: np.ndarray) -> np.ndarray:
    """[N, K] probabilities, .7 for the true class where right, else for the next one."""
    scores = np.full((NUM_IMAGES, 4), 0.1, np.float32)
    scores[np.arange(NUM_IMAGES), np.where(right, LABELS, (LABELS + 1) % 4)] = 0.7
    return scores


def first(number: int) -> np.ndarray:
    return np.arange(NUM_IMAGES) < number


def classifier(name: str, scores: np.ndarray, *, epochs: int = 1, rule: str = "one") -> None:
    folder = paths.run_report(name)
    table = classification.per_image(scores=scores, labels=LABELS, top_k=2)
    write(
        folder / "metrics.json",
        {
            **classification.metrics(scores=scores, labels=LABELS, top_k=2),
            "per_class": [{"class": each, "recall": 1.0} for each in CLASSES],
            "protocol": [["rule", rule], ["scores", name], ["ensemble", name]],
        },
    )
    pq.write_table(table, folder / "per_image.parquet")
    curve(folder / "training.csv", epochs)


def job_of(entries: dict[str, tuple[str, str, str]], runs: dict[str, Any]) -> Params:
    return Params.model_construct(
        datasets={"animals": None},
        augmentations={},
        features={},
        runs=runs,
        generators={},
        visualisations={},
        contrasts={
            name: Contrast(idea=idea, foil=foil, metric=metric, claim=f"Claim of {name}: {HOSTILE}")
            for name, (idea, foil, metric) in entries.items()
        },
    )


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Classifiers that are right on 150, 190 and 149 of 200 images, the last one on others, and one of other rules."""
    monkeypatch.chdir(tmp_path)
    classifier("plain", answers(first(150)), epochs=3)
    classifier("better", answers(first(190)), epochs=5)
    classifier("equal", answers(~first(51)))
    classifier("again", answers(first(150)))
    classifier("elsewhere", answers(first(190)), rule="another")
    counts = dict(zip(CLASSES, (30, 50, 20, 10), strict=True))
    statistics = {"images_per_class": {name: {"train": number, "test": 1} for name, number in counts.items()}}
    write(paths.data_report("animals") / "statistics.json", statistics)
    entry = run_entry("classification/resnet", "animals", "raw/animals", ClassificationEvaluation(top_k=2), epochs=3)
    entries = {
        "gain": ("better", "plain", "top1"),
        "loss": ("plain", "better", "top1"),
        "sharper": ("better", "plain", "log_loss"),
        "tie": ("equal", "plain", "top1"),
        "same": ("again", "plain", "top1"),
        "rules": ("elsewhere", "plain", "top1"),
        "frequent": ("plain", "majority", "top1"),
        "guess": ("plain", "chance", "top1"),
        "guess_balanced": ("plain", "chance", "balanced_accuracy"),
    }
    return job_of(entries, dict.fromkeys(("plain", "better", "equal", "again", "elsewhere"), entry))


@pytest.fixture
def found(planted: Params) -> dict[str, contrasts.Contrast]:
    listed = contrasts.read_contrasts(planted, read_contents(planted), num_resamples=200)
    assert [one.name for one in listed] == list(planted.contrasts)
    return {one.name: one for one in listed}


def test_each_claim_gets_the_verdict_that_was_planted(found: dict[str, contrasts.Contrast]) -> None:
    assert {name: one.verdict for name, one in found.items()} == {
        "gain": "shows",
        "loss": "does not show",
        "sharper": "shows",  # log loss is better where lower
        "tie": "no evidence",
        "same": "no evidence",
        "rules": "not comparable",
        "frequent": "shows",
        "guess": "shows",
        "guess_balanced": "shows",
    }


def test_values_and_difference_are_those_of_idea_and_foil(found: dict[str, contrasts.Contrast]) -> None:
    gain = found["gain"].difference
    assert (gain.head, gain.base) == (pytest.approx(190 / 200), pytest.approx(150 / 200))
    assert gain.difference == pytest.approx(40 / 200)
    assert gain.low is not None
    assert gain.high is not None
    assert 0 < gain.low < 0.2 < gain.high < 0.3
    assert found["sharper"].difference.difference is not None
    assert found["sharper"].difference.difference < 0


def test_a_foil_without_learning_scores_what_the_classes_say(found: dict[str, contrasts.Contrast]) -> None:
    # cats are the most of the training split, and 60 of the 200 judged images
    assert found["frequent"].difference.base == pytest.approx(60 / 200)
    assert found["frequent"].difference.difference == pytest.approx((150 - 60) / 200)
    assert found["guess"].difference.base == pytest.approx(1 / 4)
    assert found["guess_balanced"].difference.base == pytest.approx(1 / 4)
    # all 80 birds, 60 cats, 10 of 40 dogs, none of 20 eels
    assert found["guess_balanced"].difference.head == pytest.approx((1 + 1 + 0.25 + 0) / 4)


def test_an_idea_as_good_as_chance_is_rarely_told_to_be_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Level .05: of 60 classifiers that guess, 3 are expected, more than 8 with p = .005 (binomial)."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(60):
        table = classification.per_image(scores=answers(rng.random(NUM_IMAGES) < 0.25), labels=LABELS, top_k=2)
        right = float(np.mean(table.column("correct").to_numpy()))
        side = contrasts._Side({"top1": right}, table)
        of = type("Of", (), {"per_class": [{"class": name} for name in CLASSES], "dataset": "x", "name": "y"})()
        foil = contrasts._trivial("chance", side, of, {})
        (one,) = contrasts.judging.differences(foil, side, "classification", ["top1"], num_resamples=200)
        alarms += one.verdict in (comparison.BETTER, comparison.WORSE)
    assert alarms <= 8


def test_the_mean_is_the_foil_of_a_regression(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    targets = np.linspace(0.0, 9.0, 40)
    values = targets + np.tile([1.0, -1.0], 20)
    table = regression.per_image(values=values, targets=targets)
    side = contrasts._Side(regression.metrics(values=values, targets=targets), table)
    foil = contrasts._trivial("mean", side, None, {})  # type: ignore[arg-type]
    assert foil.figures["r2"] == pytest.approx(0)
    assert foil.figures["rmse"] == pytest.approx(targets.std())
    (one,) = contrasts.judging.differences(foil, side, "regression", ["rmse"], num_resamples=200)
    assert (one.verdict, one.head) == (comparison.BETTER, pytest.approx(1.0))


def test_statistics_of_other_classes_are_told(planted: Params) -> None:
    write(paths.data_report("animals") / "statistics.json", {"images_per_class": {"bird": {"train": 1}}})
    with pytest.raises(
        PipelineError, match=r"animals/statistics\.json images_per_class: not the classes of plain; fix"
    ):
        contrasts.read_contrasts(planted, read_contents(planted), num_resamples=10)


def test_without_a_per_image_table_nothing_is_claimed(planted: Params) -> None:
    (paths.run_report("plain") / "per_image.parquet").unlink()
    listed = contrasts.read_contrasts(planted, read_contents(planted), num_resamples=10)
    verdicts = {one.name: one.verdict for one in listed}
    assert verdicts["gain"] == verdicts["frequent"] == "not tested"
    (paths.run_report("plain") / "per_image.parquet").write_bytes(b"no table")
    with pytest.raises(PipelineError, match=r"plain/per_image\.parquet: not readable"):
        contrasts.read_contrasts(planted, read_contents(planted), num_resamples=10)


def test_curves_of_both_are_drawn_where_one_has_more_than_an_epoch(found: dict[str, contrasts.Contrast]) -> None:
    root = ET.fromstring(found["gain"].chart)
    # idea and foil, each on the training and the validation split
    assert len(list(root.iter("polyline"))) == 4
    assert [text.text for text in root.iter("text")][-3:] == ["idea", "foil", "validation"]
    assert found["same"].chart  # a foil of three epochs beside a dot
    assert len(list(ET.fromstring(found["guess"].chart).iter("polyline"))) == 2


@pytest.mark.parametrize(
    ("models", "rows", "unit"),
    [
        (("classification/resnet", "classification/resnet"), (3, 5), "epoch"),
        (("heads/knn", "heads/svm"), (3, 5), "combination of options, as listed"),
        (("heads/knn", "classification/resnet"), (3, 5), "combination of options, as listed or epoch"),
        (("heads/knn", "classification/resnet"), (1, 5), "epoch"),  # a lone dot counts nothing
    ],
)
def test_curves_say_what_their_rows_count(models, rows, unit) -> None:
    sides = {}
    for label, model, num in zip(("idea", "foil"), models, rows, strict=True):
        training = {"epoch": [float(n + 1) for n in range(num)], "loss": [1.0 / (n + 1) for n in range(num)]}
        sides[label] = SimpleNamespace(name=label, model=model, training=training)
    root = ET.fromstring(contrasts._chart("top1", sides))
    assert root.attrib["aria-label"] == f"loss of idea and foil by {unit}"
    assert unit in [text.text for text in root.iter("text")]


def test_the_stage_writes_numbers_curves_and_tables(planted: Params) -> None:
    report.run(planted)
    content = json.loads((paths.CONTRASTS / "contrasts.json").read_text())
    assert list(content) == sorted(planted.contrasts)
    assert content["gain"]["verdict"] == "shows"
    assert content["gain"]["idea_value"] == pytest.approx(0.95)
    assert content["gain"]["low"] < content["gain"]["difference"] < content["gain"]["high"]
    svg = (paths.CONTRASTS / "gain.svg").read_text()
    assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(--series-1)" in svg
    assert "--series-1:" in svg
    text = paths.SUMMARY.read_text()
    row = next(line for line in text.splitlines() if "Claim of gain" in line)
    assert "| **shows** | better | plain | ![better and plain](contrasts/gain.svg) |" in row
    assert "| 0.950 | 0.750 | +0.200 |" in row
    assert "<script" not in text
    html = paths.PAGE.read_text()
    assert html.count('class="verdict shown"') == 5
    assert html.count('class="verdict refuted"') == 1
    assert all(f'id="{target}"' in html for target in re.findall(r'href="#([^"]*)"', html))
    assert "<script>alert" not in html
    before = [path.read_bytes() for path in sorted(paths.CONTRASTS.iterdir())]
    report.run(planted)
    assert [path.read_bytes() for path in sorted(paths.CONTRASTS.iterdir())] == before


def test_the_split_of_a_contrast_is_told_where_it_is_not_test(planted: Params) -> None:
    report.run(planted)
    assert "judged on the test images by itself" in paths.SUMMARY.read_text()
    assert "top-1 ↑ on" not in paths.SUMMARY.read_text()
    for name in ("better", "plain"):
        entry = planted.runs[name]
        prediction = entry.prediction.model_copy(update={"split": "val"})
        planted.runs[name] = entry.model_copy(update={"prediction": prediction})
    report.run(planted)
    text = paths.SUMMARY.read_text()
    assert "judged on the test images, or those named with its score, by itself" in text
    assert "| top-1 ↑ on val |" in next(line for line in text.splitlines() if "Claim of gain" in line)
    assert paths.PAGE.read_text().count('<span class="arrow">↑</span> on val</td>') == 5


def test_without_contrasts_there_is_an_empty_list(planted: Params) -> None:
    report.run(planted.model_copy(update={"contrasts": {}}))
    assert json.loads((paths.CONTRASTS / "contrasts.json").read_text()) == {}
    assert "foils" not in paths.SUMMARY.read_text()
    assert 'id="contrasts"' not in paths.PAGE.read_text()
