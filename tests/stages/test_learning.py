"""The stages from features to pictures, each on a tiny store: what they write, and the same bytes again."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline import paths
from pipeline.data import features as feature_files
from pipeline.data.store import Store, decode_image, to_row, writing
from pipeline.errors import ParamsError, PipelineError
from pipeline.params import load
from pipeline.stages import evaluate, extract, predict, sample, train, visualise
from pipeline.structures import DatasetInfo, Objects, Sample
from pipeline.training import loop, seeding
from pipeline.training.inference import SCHEMAS

COUNTS = {"train": 12, "val": 3, "test": 5}
CLASSES = ["red", "green", "blue"]
TINY = "test_efficientnet"
PARAMS = """
defaults:
  device: cpu
  precision: float32
  threads: 1
  seed: 0
  training:
    epochs: 2
    optimizer: adamw
    lr: 0.01
    weight_decay: 0.01
    schedule: cosine
    warmup_epochs: 0.5
    batch_size: 5
    clip_norm: 1.0
    ema_decay: 0.5
tracking:
  uri: sqlite:///mlflow.db
  experiment: toy
  required: false
  timeout: 5
datasets:
  shapes: {source: digits, inputs: requirements.lock, options: {}}
  dots: {source: digits, inputs: requirements.lock, options: {}}
augmentations: {}
features:
  pixels: {inputs: raw/shapes, backbone: pixels, weights: none, image_size: 8, batch_size: 4}
  tiny: {inputs: raw/shapes, backbone: test_efficientnet, weights: none, image_size: 32, batch_size: 4}
  dots: {inputs: raw/dots, backbone: pixels, weights: none, image_size: 4, batch_size: 5}
runs:
  linear:
    {model: heads/linear, dataset: shapes, inputs: features/pixels, model_params: {c: 1.0}, training: {},
     prediction: {split: test, batch_size: 2}, evaluation: {top_k: 2}}
  svm:
    {model: heads/svm, dataset: shapes, inputs: features/pixels, model_params: {kernel: linear}, training: {},
     prediction: {split: val, batch_size: 2}, evaluation: {top_k: 2}}
  resnet:
    {model: classification/resnet, dataset: shapes, inputs: raw/shapes,
     model_params: {layers: [1, 1, 1, 1], channels: [4, 4, 8, 8]},
     training: {image_size: 32, online: {flip: 0.5, crop: 0.1, mixup: 0.2}},
     prediction: {split: test, batch_size: 2}, evaluation: {top_k: 2}}
  fcos:
    {model: detection/fcos, dataset: shapes, inputs: raw/shapes,
     model_params: {backbone: test_efficientnet, weights: none, channels: 32, convs: 1},
     training: {image_size: 96, online: {flip: 0.5}},
     prediction: {split: test, batch_size: 2},
     evaluation: {score_threshold: 0.05, iou_threshold: 0.6, max_detections: 10}}
  unet:
    {model: segmentation/unet, dataset: shapes, inputs: raw/shapes,
     model_params: {encoder: test_efficientnet, weights: none, decoder_channels: [8, 8, 8, 8, 8]},
     training: {image_size: 32}, prediction: {split: test, batch_size: 2}, evaluation: {}}
generators:
  vae:
    {model: generative/vae, dataset: dots, inputs: raw/dots, model_params: {latent: 2, hidden: 8}, training: {},
     sampling: {num_samples: 7, batch_size: 3, options: {}}, features: dots, evaluation: {reference: train}}
visualisations:
  cam: {module: cam, method: grad_cam, dataset: shapes, inputs: checkpoints/resnet, options: {num_images: 3}}
  saliency: {module: saliency, method: gradient, dataset: shapes, inputs: checkpoints/resnet, options: {}}
  pca: {module: embedding, method: pca, dataset: shapes, inputs: features/pixels, options: {}}
"""


def a_shape(split, index):
    """A square of its class's colour on grey, in images of two sizes, with every kind of truth."""
    height, width = (40, 48) if index % 2 else (48, 32)
    label, left, size = index % 3, 3 + index, 14 + index
    image = np.full((height, width, 3), 200, np.uint8)
    image[left : left + size, left : left + size] = np.eye(3, dtype=np.uint8)[label] * 200
    semantic = np.zeros((height, width), np.uint8)
    semantic[left : left + size, left : left + size] = label + 1
    box = np.array([[left, left, min(left + size, width), min(left + size, height)]], np.float32)
    objects = Objects(box, np.array([label]), np.array([size**2], np.float32), np.zeros(1, bool))
    return Sample(f"{split}_{index}", f"{index}.png", image, label=label, objects=objects, semantic=semantic)


def write_stores():
    info = DatasetInfo("shapes", ["classification", "detection", "semantic"], CLASSES, 3, "CC0", "us", "here")
    info.semantic_classes = ["background", *CLASSES]
    with writing(paths.raw("shapes"), info) as writer:
        for split, num in COUNTS.items():
            for index in range(num):
                writer.add(split, to_row(a_shape(split, index)))
    rng = np.random.default_rng(0)
    with writing(paths.raw("dots"), DatasetInfo("dots", [], [], 1, "CC0", "us", "here")) as writer:
        for split, num in COUNTS.items():
            for index in range(num):
                image = rng.integers(0, 2, (6, 6, 1), dtype=np.uint8) * 255
                writer.add(split, to_row(Sample(f"{split}_{index}", "", image)))


STEPS = (
    *((extract, name) for name in ("pixels", "tiny", "dots")),
    *((train, name) for name in ("linear", "svm", "resnet", "fcos", "unet", "vae")),
    *((predict, name) for name in ("linear", "svm", "resnet", "fcos", "unet")),
    (sample, "vae"),
    *((visualise, name) for name in ("cam", "saliency", "pca")),
)


def changed(params, mapping, name, **changes):
    """The same params with another content of one entry."""
    entry = getattr(params, mapping)[name].model_copy(update=changes)
    fields = {field: getattr(params, field) for field in type(params).model_fields}
    return type(params).model_construct(**fields | {mapping: {**fields[mapping], name: entry}})


def digests():
    """The content of every tracked output."""
    files = [
        p for root in ("data", "reports") for p in Path(root).rglob("*") if p.is_file() and "resume" not in p.parts
    ]
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(files)}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project in which every stage ran once."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
        paths.PARAMS.write_text(PARAMS)
        write_stores()
        params = load()
        for stage, name in STEPS:
            stage.run(params, name)
        yield params
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


def rows_of(path):
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def info_of(folder):
    return json.loads((folder / "info.json").read_text())


def test_features_stand_beside_their_labels_for_every_split(project):
    info, description = feature_files.describe(paths.features("pixels"))
    assert info.classes == CLASSES
    assert description == {"backbone": "pixels", "weights": "none", "image_size": 8, "dimension": 192}
    for split, num in COUNTS.items():
        found = feature_files.read(paths.features("pixels"), split)
        assert found.image_ids == [f"{split}_{i}" for i in range(num)]
        assert found.labels.tolist() == [i % 3 for i in range(num)]
        assert found.features.shape == (num, 192)
        assert found.features.max() <= 1
    schema = rows_of(paths.features("pixels") / "test.arrow").schema
    assert schema.names == ["image_id", "label", "features"]
    assert schema.field("features").type == pa.list_(pa.float32(), 192)
    assert schema.field("label").type == pa.int32()


def test_features_of_images_without_labels_have_no_label(project):
    assert rows_of(paths.features("dots") / "test.arrow").column_names == ["image_id", "features"]
    first = Store(paths.raw("dots")).split("train").read(0).image
    assert first.shape == (6, 6, 1)


def test_features_do_not_depend_on_the_batch(project):
    from pipeline.models import backbones

    extractor = backbones.extractor(TINY, "none", 32, channels=3)
    image = Store(paths.raw("shapes")).split("test").read(4).image
    want = extractor([image])[0]
    assert feature_files.read(paths.features("tiny"), "test").features[4] == pytest.approx(want, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("linear", "epoch,loss,top1,val_loss,val_top1"),
        ("resnet", "epoch,lr,loss,val_loss,val_top1,grad_norm"),
        (
            "fcos",
            (
                "epoch,lr,loss,loss_classification,loss_bbox_regression,loss_bbox_ctrness,"
                "val_loss,val_loss_classification,val_loss_bbox_regression,val_loss_bbox_ctrness,grad_norm"
            ),
        ),
        (
            "unet",
            (
                "epoch,lr,loss,loss_cross_entropy,loss_dice,val_loss,val_loss_cross_entropy,val_loss_dice,"
                "val_miou,val_pixel_accuracy,grad_norm"
            ),
        ),
    ],
)
def test_training_leaves_a_row_per_epoch(project, name, columns):
    lines = (paths.run_report(name) / "training.csv").read_text().splitlines()
    assert lines[0] == columns
    assert [line.split(",")[0] for line in lines[1:]] == (["1"] if name == "linear" else ["1", "2"])
    assert all(np.isfinite([float(value) for value in line.split(",")]).all() for line in lines[1:])


def test_a_generator_reports_apart_from_runs(project):
    lines = (paths.generator_report("vae") / "training.csv").read_text().splitlines()
    assert lines[0].startswith("epoch,lr,loss,loss_reconstruction,loss_divergence,val_loss")
    assert not paths.run_report("vae").exists()


def test_logged_scores_of_a_head_are_those_of_its_predictions(project):
    header, row = (paths.run_report("svm") / "training.csv").read_text().splitlines()
    logged = dict(zip(header.split(","), map(float, row.split(",")), strict=True))
    table = rows_of(paths.predictions("svm") / "predictions.arrow")  # of the val split
    scores = np.array(table.column("scores").to_pylist())
    truth = np.arange(3) % 3
    assert logged["val_top1"] == pytest.approx((scores.argmax(1) == truth).mean(), abs=1e-6)
    margins = [max(scores[i, j] + 1 - scores[i, i] for j in range(3) if j != i) for i in range(3)]
    assert logged["val_loss"] == pytest.approx(np.mean(np.maximum(margins, 0)), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("name", "probabilities"), [("linear", True), ("svm", False), ("resnet", True)])
def test_classifiers_write_a_score_per_class(project, name, probabilities):
    folder, split = paths.predictions(name), "val" if name == "svm" else "test"
    table = rows_of(folder / "predictions.arrow")
    assert table.schema == pa.schema({"image_id": pa.string(), "scores": pa.list_(pa.float32())})
    assert table.column("image_id").to_pylist() == [f"{split}_{i}" for i in range(COUNTS[split])]
    scores = np.array(table.column("scores").to_pylist())
    assert scores.shape == (COUNTS[split], 3)
    if probabilities:
        assert scores.sum(1) == pytest.approx(np.ones(len(scores)), abs=1e-5)
    info = info_of(folder)
    assert (info["run"], info["task"], info["dataset"]) == (name, "classification", "shapes")
    assert (info["split"], info["probabilities"]) == (split, probabilities)


def test_a_head_on_pixels_tells_the_colours_apart(project):
    scores = np.array(rows_of(paths.predictions("linear") / "predictions.arrow").column("scores").to_pylist())
    assert scores.argmax(1).tolist() == [0, 1, 2, 0, 1]


def test_detectors_write_boxes_in_pixels_of_the_original(project):
    table = rows_of(paths.predictions("fcos") / "predictions.arrow")
    assert table.schema == pa.schema({"image_id": pa.string(), **SCHEMAS["detection"]})
    rows = table.to_pylist()
    assert [row["image_id"] for row in rows] == [f"test_{i}" for i in range(5)]
    reach = np.zeros(4)
    for index, row in enumerate(rows):
        assert len(row["boxes"]) == len(row["scores"]) == len(row["labels"]) > 20
        boxes = np.array(row["boxes"])
        height, width = a_shape("test", index).image.shape[:2]
        assert boxes.min() >= 0
        assert (boxes.max(0) <= np.array([width, height, width, height]) + 1e-3).all()
        reach = np.maximum(reach, boxes.max(0) / [width, height, width, height])
    assert (reach[2:] > 0.9).all()  # they fill the image, whose size is not the network's
    assert info_of(paths.predictions("fcos"))["probabilities"] is False


def test_segmenters_write_maps_of_the_original_size(project):
    rows = rows_of(paths.predictions("unet") / "predictions.arrow").to_pylist()
    assert [list(row) for row in rows] == [["image_id", "label_map"]] * 5
    for index, row in enumerate(rows):
        label_map = decode_image(row["label_map"], 1)[..., 0]
        assert label_map.shape == a_shape("test", index).image.shape[:2]
        assert label_map.max() < 4


def test_samples_come_with_as_much_noise_and_the_features_of_both(project):
    table = rows_of(paths.samples("vae") / "samples.arrow")
    assert table.column_names == ["kind", "image", "features"]
    assert table.column("kind").to_pylist() == ["sample"] * 7 + ["noise"] * 7
    assert table.schema.field("features").type == pa.list_(pa.float32(), 16)
    images = [decode_image(data, 1) for data in table.column("image").to_pylist()]
    assert {image.shape for image in images} == {(6, 6, 1)}
    assert len({image.tobytes() for image in images}) == 14  # the batches differ, too
    noise = np.concatenate([image.ravel() for image in images[7:]])
    assert noise.mean() == pytest.approx(127.5, abs=4 * 73.9 / np.sqrt(len(noise)))
    from pipeline.models import backbones

    want = backbones.extractor("pixels", "none", 4, channels=1)(images)
    assert feature_files.matrix(table.column("features")) == pytest.approx(want)
    info = info_of(paths.samples("vae"))
    assert info["features"] == {"backbone": "pixels", "weights": "none", "image_size": 4, "dimension": 16}
    assert (info["generator"], info["model"], info["num_samples"]) == ("vae", "generative/vae", 7)
    assert info["features"] == feature_files.describe(paths.features("dots"))[1]


@pytest.mark.parametrize(
    ("name", "pictures", "title"),
    [
        ("cam", ["heat.png"], "grad-cam of resnet"),
        ("saliency", ["heat.png"], "gradient of resnet"),
        ("pca", ["images.png", "points.png"], "PCA of pixels features"),
    ],
)
def test_visualisations_are_small_pictures_with_a_caption(project, name, pictures, title):
    folder = paths.visualisation_report(name)
    assert sorted(path.name for path in folder.glob("*.png")) == pictures
    assert all(0 < path.stat().st_size < 200_000 for path in folder.glob("*.png"))
    description = json.loads((folder / "visualisation.json").read_text())
    assert sorted(description) == ["caption", "method", "module", "title"]
    assert description["title"] == title
    assert f"{3 if name == 'cam' else 5} images of the test split of shapes" in description["caption"]


def test_every_stage_writes_the_same_bytes_again_and_no_path_of_this_machine(project):
    before = digests()
    shutil.rmtree(paths.RESUME, ignore_errors=True)
    for stage, name in STEPS:
        stage.run(project, name)
    after = digests()
    assert after == before
    here = str(Path.cwd()).encode()
    assert not [path for path in after if here in Path(path).read_bytes()]
    assert not [path for path in after if Path(path).name.startswith(".")]


def test_features_are_of_float32_whatever_the_precision(project):
    before = digests()
    defaults = project.defaults.model_copy(update={"precision": "bfloat16"})
    extract.run(project.model_copy(update={"defaults": defaults}), "tiny")
    assert digests() == before


def test_an_interrupted_train_stage_goes_on_to_the_same_bytes(project, monkeypatch):
    before = digests()
    monkeypatch.setattr(loop, "SNAPSHOT_SECONDS", -1.0)
    augment, calls = loop.augment_batch, []

    def stop(*args):
        calls.append(args)
        if len(calls) == 5:  # of 3 steps an epoch: in the second
            raise KeyboardInterrupt
        return augment(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "augment_batch", stop)
        with pytest.raises(KeyboardInterrupt):
            train.run(project, "resnet")
    assert digests() == before
    assert len(list((paths.RESUME / "resnet" / "0").iterdir())) == 1
    train.run(project, "resnet")
    assert digests() == before


def test_further_seeds_are_trained_predicted_and_told_apart(project):
    training = project.runs["resnet"].training.model_copy(update={"seeds": [0, 7]})
    both = changed(project, "runs", "resnet", training=training)
    first = (paths.checkpoint("resnet") / "weights.safetensors").read_bytes()
    train.run(both, "resnet")
    predict.run(both, "resnet")
    evaluate.run(both, "resnet")
    weights = paths.checkpoint("resnet")
    assert (weights / "weights.safetensors").read_bytes() == first
    assert (paths.of_seed(weights, 7) / "weights.safetensors").read_bytes() != first
    metrics = json.loads((paths.run_report("resnet") / "metrics.json").read_text())
    name, mean, std, one, other = next(row for row in metrics["seeds"] if row[0] == "log_loss")
    assert one == metrics[name]
    # of two values the mean is the middle, and the deviation their distance over the root of 2
    assert (mean, std) == pytest.approx(((one + other) / 2, abs(one - other) / 2**0.5), rel=1e-4)
    for stage, step in STEPS:
        if step == "resnet":
            stage.run(project, step)  # as it was, for the tests that follow


def test_an_unknown_model_param_and_option_are_named(project):
    with pytest.raises(ParamsError, match=r"runs\.linear\.model_params\.cc: unknown key"):
        train.run(changed(project, "runs", "linear", model_params={"cc": 1.0}), "linear")
    with pytest.raises(ParamsError, match=r"runs\.resnet\.model_params\.layer: unknown key; did you mean 'layers'"):
        train.run(changed(project, "runs", "resnet", model_params={"layer": [1]}), "resnet")
    with pytest.raises(ParamsError, match=r"generators\.vae\.model_params\.latent"):
        train.run(changed(project, "generators", "vae", model_params={"latent": "2"}), "vae")
    sampling = project.generators["vae"].sampling.model_copy(update={"options": {"steps": 3}})
    with pytest.raises(ParamsError, match=r"generators\.vae\.sampling\.options\.steps: unknown key"):
        sample.run(changed(project, "generators", "vae", sampling=sampling), "vae")
    with pytest.raises(ParamsError, match=r"visualisations\.pca\.options\.perplexity: unknown key"):
        visualise.run(changed(project, "visualisations", "pca", options={"perplexity": 3}), "pca")


def test_a_missing_checkpoint_and_a_run_that_is_no_classifier_are_refused(project):
    with pytest.raises(PipelineError, match=r"data/checkpoints/none/model\.json: no checkpoint there; fix: "):
        predict.run(project.model_copy(update={"runs": {"none": project.runs["resnet"]}}), "none")
    with pytest.raises(ParamsError, match="grad_cam explains classifiers, not segmentation/unet"):
        visualise.run(changed(project, "visualisations", "cam", inputs="checkpoints/unet"), "cam")


def test_a_head_needs_labels(project):
    with pytest.raises(PipelineError, match="its images have no class labels, which heads/linear needs"):
        train.run(changed(project, "runs", "linear", inputs="features/dots"), "linear")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_on_a_gpu_every_stage_writes_the_same_bytes_again(tmp_path, monkeypatch, precision):
    monkeypatch.chdir(tmp_path)
    text = PARAMS.replace("device: cpu", "device: cuda").replace("precision: float32", f"precision: {precision}")
    paths.PARAMS.write_text(text)
    write_stores()
    params, found = load(), []
    threads = torch.get_num_threads()
    for _ in range(2):
        for stage, name in STEPS:
            stage.run(params, name)
        found.append(digests())
    seeding.set_up(params.defaults.model_copy(update={"device": "cpu", "threads": threads}))
    torch.use_deterministic_algorithms(False)
    assert found[0] == found[1]
