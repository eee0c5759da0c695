from dataclasses import replace

import numpy as np
import pytest

from pipeline.data.augmentation import augmented, compose
from pipeline.data.presets import PRESETS
from pipeline.errors import ParamsError, PipelineError
from pipeline.structures import IGNORE, Sample

WHERE = "augmentations.x.transforms"
ON_EVERY_TRUTH = [name for name in PRESETS if name != "mixup"]  # which refuses label maps


class Shown(list):
    """Samples in the place of a split."""

    def read(self, index, masks=False):
        return self[index]


@pytest.fixture
def large(sample):
    """The sample three times as large, so that presets find room in it."""

    def grown(values, axes):
        return values.repeat(3, axes[0]).repeat(3, axes[1])

    objects = sample.objects
    keypoints = objects.keypoints * np.where(objects.keypoints[..., 2:] > 0, [3, 3, 1], 1)
    return replace(
        sample,
        image=grown(sample.image, (0, 1)),
        semantic=grown(sample.semantic, (0, 1)),
        segments=replace(sample.segments, ids=grown(sample.segments.ids, (0, 1))),
        objects=replace(
            objects,
            boxes=objects.boxes * 3,
            area=objects.area * 9,
            masks=grown(objects.masks, (1, 2)),
            keypoints=keypoints.astype(np.float32),
        ),
    )


def apply(sample, info, *transforms, number=1, min_visibility=0.3):
    policy = compose(transforms, WHERE, min_visibility)
    policy.check(info, WHERE)
    other = replace(sample, image_id="b", image=255 - sample.image)
    return augmented(sample, policy, info, seed=0, number=number, partners=Shown([sample, other]))


@pytest.mark.parametrize("name", ON_EVERY_TRUTH)
@pytest.mark.parametrize("number", range(1, 7))
def test_truth_of_a_copy_agrees_with_itself(large, info, name, number):
    copy = apply(large, info, {"preset": name}, number=number)
    assert copy.image.shape == large.image.shape
    assert copy.image.dtype == np.uint8
    thing = np.array([*info.thing_of_semantic, *[-1] * 252])
    assert np.array_equal(copy.objects.masks.any(0), thing[copy.semantic] >= 0)
    for box, mask, area, label in zip(
        copy.objects.boxes, copy.objects.masks, copy.objects.area, copy.objects.labels, strict=True
    ):
        rows, columns = np.nonzero(mask)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert area == mask.sum()
        assert (thing[copy.semantic[mask]] == label).all()
    label_of = dict(zip(copy.segments.segment_ids.tolist(), copy.segments.labels.tolist(), strict=True)) | {0: IGNORE}
    assert np.array_equal(np.vectorize(label_of.get)(copy.segments.ids), copy.semantic)
    assert set(np.unique(copy.segments.ids)) - {0} == set(copy.segments.segment_ids.tolist())
    assert not np.array_equal(copy.image, large.image) or name in ("autoaugment", "trivialaugment", "weather", "colour")


@pytest.mark.parametrize("name", ON_EVERY_TRUTH)
def test_copies_differ_and_each_is_the_same_every_time(large, info, name):
    images = [apply(large, info, {"preset": name}, number=number).image for number in range(1, 7)]
    assert len({image.tobytes() for image in images}) > 3
    assert np.array_equal(images[4], apply(large, info, {"preset": name}, number=5).image)


@pytest.mark.parametrize("name", [name for name in PRESETS if name not in ("weather", "mosaic", "copy_paste", "mixup")])
def test_grey_digit_stays_grey_and_keeps_its_class(info, name):
    info = replace(info, tasks=["classification"], channels=1)
    digit = Sample("7", "7.png", np.random.default_rng(0).integers(0, 256, (28, 28, 1), dtype=np.uint8), label=1)
    copy = apply(digit, info, {"preset": name})
    assert copy.image.shape == (28, 28, 1)
    assert copy.label == 1


def test_weather_on_grey_images_is_refused_by_name(info):
    grey = Sample("7", "digits/7.png", np.full((28, 28, 1), 99, np.uint8), label=1)
    info = replace(info, tasks=["classification"], channels=1)

    def every_kind_of_weather():
        for number in range(1, 20):
            apply(grey, info, {"preset": "weather", "p": 1.0}, number=number)

    with pytest.raises(PipelineError, match=r"digits/7\.png copy \d+: the augmentation fails on .*grey") as caught:
        every_kind_of_weather()
    assert "\n" not in str(caught.value)


def test_cutout_cuts_the_truth_too(large, info):
    copy = apply(large, info, {"preset": "cutout", "size": 0.6}, min_visibility=0.0)
    hole = (copy.image == 0).all(-1)
    assert 0.09 <= hole.mean() <= 0.36  # half of 0.6 to 0.6 of each side
    assert (copy.semantic[hole] == IGNORE).mean() > 0.99  # a black pixel of the image itself is no hole
    assert not copy.objects.masks[:, copy.semantic == IGNORE].any()
    assert np.array_equal(copy.image[~hole], large.image[~hole])


def test_flip_crop_stays_within_the_image(large, info):
    for number in range(1, 5):
        assert (apply(large, info, {"preset": "flip_crop"}, number=number).semantic != IGNORE).all()


def test_presets_stand_among_transforms_and_within_one_of(large, info):
    chain = (
        {"preset": "mosaic"},
        {"name": "HorizontalFlip", "p": 1.0},
        {"name": "OneOf", "transforms": [{"preset": "colour"}, {"name": "Blur", "p": 1.0}], "p": 1.0},
        {"preset": "cutout"},
    )
    assert len(compose(chain, WHERE).steps) == 2  # the mosaic, then all that albumentations does at once
    copy = apply(large, info, *chain)
    assert (copy.image_id, copy.captions) == ("a~1", None)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"preset": "wether"}, r"transforms\.0\.preset: no such preset \('wether'\); did you mean 'weather'"),
        ({"preset": "weather", "q": 1.0}, r"transforms\.0\.q: unknown key; choices: p"),
        ({"preset": "weather", "p": "x"}, r"transforms\.0\.p: should be a valid number"),
        ({"preset": "weather", "p": 2.0}, r"transforms\.0: preset weather refuses its arguments: p should be 0 to 1"),
        ({"preset": "mosaic", "p": 2.0}, r"transforms\.0: preset mosaic refuses its arguments: p should be 0 to 1"),
        ({"preset": "mosaic", "scale": [0.5, 1.5]}, r"scale should be two rising shares, above 0 and up to 1"),
        ({"preset": "copy_paste", "max_objects": 0}, r"max_objects should be at least 1 \(0\)"),
        ({"preset": "mixup", "alpha": 0.0}, r"alpha should be above 0 \(0\.0\)"),
        ({"preset": "randaugment", "magnitude": 31}, r"magnitude should be 0 to num_magnitude_bins - 1"),
        ({"preset": "autoaugment", "policy": "coco"}, r"transforms\.0\.policy: should be 'imagenet', 'cifar10' or"),
        ({"name": "OneOf", "transforms": 3}, r"transforms\.0\.transforms: should be a list of transforms \(3\)"),
        (
            {"name": "OneOf", "transforms": [{"preset": "mosaic"}]},
            r"a preset that mixes samples stands at the top only",
        ),
        ({"name": "SomeOf", "transforms": [{"name": "Blurr"}]}, r"transforms\.0\.transforms\.0\.name: .*'Blur'"),
        ({"name": "Normalize"}, r"no such transform"),
    ],
)
def test_fault_in_a_preset_is_one_line_that_names_it(entry, message):
    with pytest.raises(ParamsError, match=message) as caught:
        compose([entry], WHERE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "tasks", "message"),
    [
        ("mixup", ["classification"], r"classification truth of two blended images is not one class; .*online\.mixup"),
        ("mixup", ["detection", "semantic"], r"semantic truth of two blended images is not one class"),
        ("mosaic", ["classification"], r"a mosaic of four images has no classification truth of its own"),
        ("copy_paste", ["detection"], r"only objects with masks can be pasted, and toy has none"),
        (
            "copy_paste",
            ["classification", "instance"],
            r"pasted objects make the classification truth of an image untrue",
        ),
    ],
)
def test_truth_that_a_store_cannot_hold_is_refused(info, name, tasks, message):
    policy = compose([{"preset": name}], WHERE)
    with pytest.raises(ParamsError, match=message):
        policy.check(replace(info, tasks=tasks), WHERE)
