"""Models that are fitted to numbers, from a store to figures and pictures, and the same bytes again."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import paths
from pipeline.data.store import Store, to_row, writing
from pipeline.errors import ParamsError, PipelineError
from pipeline.params import load
from pipeline.stages import corrupt, evaluate, extract, predict, train, visualise
from pipeline.structures import DatasetInfo, Sample
from pipeline.training.checkpoint import load as load_checkpoint

COUNTS = {"train": 40, "val": 12, "test": 20}
CLASSES = ["down", "across"]
PARAMS = """
defaults:
  {device: cpu, precision: float32, threads: 1, seed: 0,
   training: {optimizer: adamw, lr: 0.01, weight_decay: 0.01, schedule: cosine, warmup_epochs: 0.5, batch_size: 5,
              clip_norm: 1.0, ema_decay: 0.0}}
tracking: {uri: "sqlite:///mlflow.db", experiment: toy, required: false, timeout: 5}
datasets:
  stripes: {source: digits, inputs: requirements.lock, options: {}}
augmentations: {}
features:
  pixels: {inputs: raw/stripes, backbone: pixels, weights: none, image_size: 8, batch_size: 7}
  words: {inputs: raw/stripes, backbone: visual_words, weights: none, image_size: 8, batch_size: 7,
          options: {words: 4, patch: 4, stride: 1, grid: 1, num_patches: 500}}
  colours: {inputs: raw/stripes, backbone: colour_histogram, weights: none, image_size: 8, batch_size: 7}
runs:
  line: {model: regression/linear, dataset: stripes, inputs: raw/stripes, model_params: {columns: [length]},
         training: {}, prediction: {split: test, batch_size: 4}, evaluation: {}}
  plane: {model: regression/linear, dataset: stripes, inputs: raw/stripes, model_params: {steps: 1000},
          training: {}, prediction: {split: test, batch_size: 4}, evaluation: {}}
  brightness: {model: regression/linear, dataset: stripes, inputs: features/colours, model_params: {},
               training: {}, prediction: {split: test, batch_size: 4}, evaluation: {}}
  softmax: {model: heads/softmax, dataset: stripes, inputs: features/pixels, model_params: {epochs: 20},
            training: {}, prediction: {split: test, batch_size: 4}, evaluation: {top_k: 2}}
  words: {model: heads/linear, dataset: stripes, inputs: features/words, model_params: {c: [0.01, 1.0], retrain: true},
          training: {}, prediction: {split: test, batch_size: 4}, evaluation: {top_k: 2}}
generators: {}
robustness:
  words: {run: words, dataset: stripes, metric: top1, corruptions: [contrast], severities: [1], num_images: 6}
visualisations:
  surface: {module: descent, method: loss_surface, dataset: stripes, inputs: checkpoints/line, options: {}}
  templates: {module: templates, method: templates, dataset: stripes, inputs: checkpoints/softmax,
              options: {columns: 2}}
"""
GENERATOR = """generators:
  vae: {model: generative/vae, dataset: stripes, inputs: raw/stripes, model_params: {}, training: {epochs: 1},
        sampling: {num_samples: 4, batch_size: 4, options: {}}, features: words, evaluation: {reference: train}}
"""
RUNS = ("line", "plane", "brightness", "softmax", "words")


def write_store():
    """Stripes down or across over two brightnesses; target = 3 length - width + noise."""
    rng = np.random.default_rng(0)
    info = DatasetInfo("stripes", ["classification", "regression"], CLASSES, 1, "CC0", "us", "here")
    info.feature_names = ["length", "width"]
    with writing(paths.raw("stripes"), info) as writer:
        for split, num in COUNTS.items():
            for index in range(num):
                label = index % 2
                line = np.roll(np.tile(np.repeat([0, 120], 2), 2), rng.integers(0, 4)).astype(np.uint8)
                image = np.tile(line, (8, 1)) + rng.integers(0, 100, (1, 1)).astype(np.uint8)
                image = (image.T if label else image)[..., None]
                length, width = rng.normal(10, 2), rng.normal(5, 2)
                target = 3 * length - width + rng.normal(0, 0.1)
                sample = Sample(f"{split}_{index}", f"{index}.png", image, label=label, target=target)
                writer.add(split, {**to_row(sample), "features": [length, width]})


def run_all(params):
    for name in params.features:
        extract.run(params, name)
    for name in RUNS:
        for stage in (train, predict, evaluate):
            stage.run(params, name)
    for name in params.visualisations:
        visualise.run(params, name)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("project"))
        paths.PARAMS.write_text(PARAMS)
        write_store()
        params = load()
        run_all(params)
        yield params


def metrics_of(name):
    return json.loads((paths.run_report(name) / "metrics.json").read_text())


def test_a_regression_on_a_table_is_trained_predicted_and_judged(project):
    split = Store(paths.raw("stripes")).split("test")
    answers = pa.ipc.open_file(str(paths.predictions("plane") / "predictions.arrow")).read_all()
    assert answers.column_names == ["image_id", "value"]
    assert answers.column("image_id").to_pylist() == split.column("image_id")
    values, targets = (np.array(column) for column in (answers.column("value").to_pylist(), split.column("target")))
    found = metrics_of("plane")
    assert found["rmse"] == pytest.approx(float(np.sqrt(((values - targets) ** 2).mean())), rel=1e-5)
    assert found["rmse"] < 0.2  # the noise is 0.1
    # of the length alone: the width's 2 is left, and the mean is off by 2 of the width and 6 of the length
    assert 1 < metrics_of("line")["rmse"] < 3.2 < 4 < found["rmse_mean"] < 9
    assert [name for name, *_ in found["intervals"]] == ["rmse", "mae", "r2", "rmse_mean"]
    rows = pq.read_table(paths.run_report("plane") / "per_image.parquet")
    assert rows.column_names == ["image_id", "target", "predicted", "error"]


def test_a_regression_on_features_of_images_runs_too(project):
    assert metrics_of("brightness")["r2"] < 0.5  # brightness says nothing of the target


def test_the_reports_pictures_and_gallery_are_there(project):
    pictures = {path.name for path in (paths.run_report("line") / "pictures").iterdir()}
    assert pictures == {"agreement.png", "residuals.png", "predictions.png"}
    items = json.loads((paths.run_report("line") / "gallery.json").read_text())["items"]
    assert len(items) == COUNTS["test"]
    assert items[0]["answers"][0]["label"].split()[1:3] == ["off", "by"]


def test_the_log_of_a_regression_has_a_row_for_each_kept_step(project):
    lines = (paths.run_report("line") / "training.csv").read_text().splitlines()
    assert lines[0] == "epoch,loss,val_loss"
    assert len(lines) == 201  # the start and 199 of 200 steps, the last among them
    assert lines[-1].startswith("200,")


def test_words_are_learnt_from_train_and_tell_stripes_apart_in_changed_images(project):
    assert metrics_of("words")["top1"] == 1
    checkpoint = load_checkpoint(paths.checkpoint("words"))
    assert checkpoint.arrays["extractor.codebook"].shape == (4, 16)
    assert checkpoint.model_params in ({"c": 0.01}, {"c": 1.0})
    corrupt.run(project, "words")  # makes features of images anew, with the codebook of the checkpoint
    found = json.loads((paths.robustness_report("words") / "metrics.json").read_text())
    assert found["clean_top1"] == 1


def test_visualisations_of_linear_models(project):
    for name, picture in (("surface", "loss_surface.png"), ("templates", "templates.png")):
        folder = paths.visualisation_report(name)
        assert sorted(path.name for path in folder.iterdir()) == [picture, "visualisation.json"]


def test_everything_is_the_same_bytes_again(project):
    def digests():
        files = sorted(p for root in ("data", "reports/runs", "reports/visualise") for p in Path(root).rglob("*"))
        return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files if p.is_file()}

    before = digests()
    run_all(project)
    assert digests() == before


def test_a_number_that_is_not_finite_is_refused(project):
    path = paths.predictions("line") / "predictions.arrow"
    content = path.read_bytes()
    table = pa.ipc.open_file(pa.BufferReader(content)).read_all()
    values = table.column("value").to_pylist()
    values[2] = float("nan")
    try:
        broken = table.set_column(1, "value", pa.array(values, pa.float32()))
        with pa.ipc.new_file(str(path), table.schema) as file:
            file.write_table(broken)
        with pytest.raises(PipelineError, match=r"#test_2 value: not a finite number \(nan\); fix: dvc repro --force"):
            evaluate.run(project, "line")
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("inputs: raw/stripes, model_params: {columns", "inputs: augmented/x, model_params: {columns",
         r"runs.line.inputs: should be features/NAME or raw/NAME"),
        ("training: {}, prediction", "training: {epochs: 3}, prediction",
         r"runs.line.training.epochs: regression/linear is fitted by its model_params"),
        ("{run: words, dataset", "{run: line, dataset",
         r"robustness.words.run: 'line' reads the numbers of a table, not its images"),
        ("evaluation: {}", "evaluation: {top_k: 5}", r"runs.line.evaluation.top_k: unknown key"),
        ("generators: {}", GENERATOR, r"generators.vae.features: 'visual_words' is fitted to real images"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_at_load(tmp_path, monkeypatch, old, new, message):
    monkeypatch.chdir(tmp_path)
    paths.PARAMS.write_text(PARAMS.replace(old, new, 1))
    with pytest.raises(ParamsError, match=message):
        load()
