"""Detections and truth of the size of COCO's val2017, drawn with a fixed seed and written as COCO's JSON.

About 7.4 objects of 80 classes in an image, 97 detections after suppression: several near each object, the rest
elsewhere, of which nine tenths overlap nothing enough to be a match.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, HEIGHT, NUM_CLASSES, MOST = 640, 480, 80, 100


def boxes(num_images: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Columns of truth and detections, boxes as left, top, width, height with two digits."""
    rng = np.random.default_rng(seed)
    share = np.arange(1, NUM_CLASSES + 1) ** -0.8
    share /= share.sum()
    nums = rng.poisson(7.354, num_images)
    images = np.repeat(np.arange(num_images), nums)
    palette = rng.choice(NUM_CLASSES, (num_images, 3), p=share)  # objects of an image are of few classes
    labels = palette[images, rng.integers(0, 3, len(images))]
    truth = _scattered(rng, len(images))
    near = np.repeat(np.arange(len(images)), rng.poisson(2.6, len(images)))
    noise = np.exp(rng.normal(np.log(0.1), 0.8, len(near)))
    moved = truth[near].copy()
    moved[:, :2] += rng.normal(0, 1, (len(near), 2)) * noise[:, None] * moved[:, 2:]
    moved[:, 2:] *= np.exp(rng.normal(0, 1, (len(near), 2)) * noise[:, None])
    guessed = np.where(rng.random(len(near)) < 0.85, labels[near], rng.integers(0, NUM_CLASSES, len(near)))
    num_others = int(num_images * 99.5) - len(near)
    others = rng.integers(0, num_images, num_others)
    of_palette = rng.random(num_others) < 0.6
    other_labels = np.where(
        of_palette, palette[others, rng.integers(0, 3, num_others)], rng.choice(NUM_CLASSES, num_others, p=share)
    )
    shown = {
        "images": np.concatenate([images[near], others]),
        "labels": np.concatenate([guessed, other_labels]),
        "boxes": np.concatenate([moved, _scattered(rng, num_others)]).round(2),
        "scores": np.concatenate(
            [1 / (1 + np.exp(-rng.normal(0.8 - 4 * noise, 1.2))), rng.beta(0.6, 6, num_others)]
        ).round(5),
        "source": np.concatenate([near, np.full(num_others, -1)]),
    }
    order = np.lexsort((-shown["scores"], shown["images"]))
    sorted_images = shown["images"][order]
    order = order[np.arange(len(order)) - np.searchsorted(sorted_images, sorted_images) < MOST]
    truth = truth.round(2)
    return {name: values[order] for name, values in shown.items()} | {
        "truth_images": images,
        "truth_labels": labels,
        "truth_boxes": truth,
        "truth_areas": (truth[:, 2] * truth[:, 3] * rng.uniform(0.45, 0.95, len(truth))).round(3),
        "iscrowd": rng.random(len(truth)) < 0.012,
    }


def _scattered(rng: np.random.Generator, num: int) -> np.ndarray:
    side, ratio = np.exp(rng.normal(np.log(55), 0.95, num)).clip(6, 430), np.exp(rng.normal(0, 0.4, num) / 2)
    width, height = np.minimum(side * ratio, WIDTH - 2), np.minimum(side / ratio, HEIGHT - 2)
    return np.stack([rng.random(num) * (WIDTH - width), rng.random(num) * (HEIGHT - height), width, height], axis=1)


def write(folder: Path, kind: str, num_images: int, seed: int = 0) -> None:
    """Writes truth.json and results.json of a kind: boxes, masks or keypoints."""
    columns = boxes(num_images, seed)
    truth = [
        {"id": number, "image_id": 7 * image + 1, "category_id": label + 1, "bbox": box, "area": area, "iscrowd": crowd}
        for number, (image, label, box, area, crowd) in enumerate(
            zip(
                *(columns[f"truth_{name}"].tolist() for name in ("images", "labels", "boxes", "areas")),
                columns["iscrowd"].astype(int).tolist(),
                strict=True,
            ),
            1,
        )
    ]
    results: list[dict[str, Any]] = [
        {"image_id": 7 * image + 1, "category_id": label + 1, "bbox": box, "score": score}
        for image, label, box, score in zip(
            *(columns[name].tolist() for name in ("images", "labels", "boxes", "scores")), strict=True
        )
    ]
    if kind == "masks":
        _add_masks(truth, results)
    if kind == "keypoints":
        truth, results = _with_keypoints(columns, truth, results, np.random.default_rng(seed + 1))
    images = [{"id": 7 * index + 1, "width": WIDTH, "height": HEIGHT} for index in range(num_images)]
    num_classes = 1 if kind == "keypoints" else NUM_CLASSES
    categories = [{"id": index + 1, "name": f"class {index}"} for index in range(num_classes)]
    folder.mkdir(parents=True, exist_ok=True)
    content = {"images": images, "categories": categories, "annotations": truth}
    (folder / "truth.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")


def _add_masks(truth: list[dict[str, Any]], results: list[dict[str, Any]]) -> None:
    """An ellipse with a wavy rim in each box, as compressed run lengths; results keep no box."""
    from pycocotools import mask as coco_mask

    for row in (*truth, *results):
        left, top, width, height = row["bbox"]
        columns = np.arange(max(0, int(left)), min(WIDTH, int(left + width) + 1))
        across = (columns + 0.5 - left) / width * 2 - 1
        half = np.sqrt(np.clip(1 - across**2, 0, None)) * height / 2 * (0.9 + 0.1 * np.cos(columns))
        low = np.clip(np.round(top + height / 2 - half), 0, HEIGHT)
        high = np.clip(np.round(top + height / 2 + half), 0, HEIGHT)
        filled = high > low
        ends = np.stack([columns * HEIGHT + low, columns * HEIGHT + high], axis=1)[filled].ravel()
        runs = np.diff(np.concatenate([[0], ends, [WIDTH * HEIGHT]])).astype(int).tolist()
        mask = coco_mask.frPyObjects({"size": [HEIGHT, WIDTH], "counts": runs}, HEIGHT, WIDTH)
        row["segmentation"] = {"size": mask["size"], "counts": mask["counts"].decode()}
        if "score" in row:
            del row["bbox"]
        else:
            row["area"] = float(sum(runs[1::2]))


def _with_keypoints(
    columns: dict[str, np.ndarray], truth: list[dict[str, Any]], results: list[dict[str, Any]], rng: np.random.Generator
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Every third object as a person of 17 keypoints, the detections near them, and 20 of the others in an image."""
    place = rng.random((len(truth), 17, 2))
    visible = rng.integers(0, 3, (len(truth), 17)) * (rng.random((len(truth), 1)) < 0.9)
    chosen = rng.random(len(truth)) < 1 / 3
    people = []
    for index in np.flatnonzero(chosen):
        row, box = truth[index], columns["truth_boxes"][index]
        points = np.round(box[:2] + place[index] * box[2:], 1)
        flat = np.concatenate([points, visible[index][:, None]], axis=1).ravel().tolist()
        people.append(row | {"category_id": 1, "keypoints": flat, "num_keypoints": int((visible[index] > 0).sum())})
    source = columns["source"]
    kept = np.where(source >= 0, chosen[source], rng.random(len(source)) < 0.2)
    found = []
    for index in np.flatnonzero(kept):
        row, box = results[index], columns["boxes"][index]
        layout = place[source[index]] if source[index] >= 0 else rng.random((17, 2))
        points = np.round(box[:2] + layout * box[2:] + rng.normal(0, 0.02, (17, 2)) * box[2:], 1)
        flat = np.concatenate([points, np.ones((17, 1))], axis=1).ravel().tolist()
        found.append({"image_id": row["image_id"], "category_id": 1, "keypoints": flat, "score": row["score"]})
    return people, found
