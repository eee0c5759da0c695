import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from pipeline.data import geometry
from pipeline.data.augmentation import augmented, compose, copy_seed
from pipeline.data.geometry import mirror_order
from pipeline.errors import ParamsError
from pipeline.ops.masks import boxes_of
from pipeline.structures import IGNORE, Objects, Sample

WHERE = "augmentations.x.transforms"


def apply(sample, info, *transforms, min_visibility=0.3, number=1, seed=0, partners=None):
    policy = compose(list(transforms), WHERE, min_visibility)
    return augmented(sample, policy, info, seed=seed, number=number, partners=partners)


FLIP = {"name": "HorizontalFlip", "p": 1.0}
SCENE = (
    {"name": "Affine", "rotate": [-25, 25], "scale": [0.8, 1.3], "translate_percent": [-0.2, 0.2], "p": 1.0},
    {"name": "RandomBrightnessContrast", "p": 1.0},
)


def test_flip_maps_pixels_boxes_masks_and_maps(sample, info):
    copy = apply(sample, info, FLIP)
    assert np.array_equal(copy.image, sample.image[:, ::-1])
    assert np.array_equal(copy.semantic, sample.semantic[:, ::-1])
    assert np.array_equal(copy.segments.ids, sample.segments.ids[:, ::-1])
    assert np.array_equal(copy.objects.masks, sample.objects.masks[:, :, ::-1])
    # W = 30: x1, x2 become 30 - x2, 30 - x1
    assert copy.objects.boxes.tolist() == [[22, 4, 28, 10], [2, 6, 10, 12]]
    assert copy.objects.area.tolist() == [36, 48]
    assert (copy.image_id, copy.file_name, copy.group) == ("a~1", "folder/a~1.png", "g")


def test_flip_maps_keypoints_and_exchanges_left_and_right(sample, info):
    copy = apply(sample, info, FLIP)
    # x becomes 30 - x; the ears change places; an absent one stays absent and without a place
    assert copy.objects.keypoints[0].tolist() == [[27.5, 4.5, 2], [26.5, 9.5, 1], [22.5, 4.5, 2]]
    assert copy.objects.keypoints[1].tolist() == [[6.0, 7.0, 2], [2.5, 11.5, 2], [0, 0, 0]]


def test_half_a_turn_is_no_mirror(sample, info):
    copy = apply(sample, info, FLIP, {"name": "VerticalFlip", "p": 1.0})
    # x, y become 30 - x, 20 - y and every ear keeps its side
    assert copy.objects.keypoints[0].tolist() == [[27.5, 15.5, 2], [22.5, 15.5, 2], [26.5, 10.5, 1]]


def test_captions_stay_only_where_nothing_moved(sample, info):
    assert apply(sample, info, FLIP).captions is None
    assert apply(sample, info, {"name": "RandomBrightnessContrast", "p": 1.0}).captions == sample.captions


def test_object_pushed_out_is_removed_from_all_truth(sample, info):
    # 6 columns to the left: of the cat (columns 2..7) two columns of six stay, a third; of the dog all
    shift = {"name": "Affine", "translate_px": {"x": [-6, -6], "y": [0, 0]}, "p": 1.0}
    kept = apply(sample, info, shift, min_visibility=0.3)
    assert kept.objects.boxes.tolist() == [[0, 4, 2, 10], [14, 6, 22, 12]]
    assert kept.objects.keypoints[0].tolist() == [[0, 0, 0], [1.5, 4.5, 2], [0, 0, 0]]
    dropped = apply(sample, info, shift, min_visibility=0.4)
    assert dropped.objects.boxes.tolist() == [[14, 6, 22, 12]]
    assert dropped.objects.labels.tolist() == [1]
    assert (dropped.semantic[4:10, 0:2] == IGNORE).all()
    assert (dropped.segments.ids[4:10, 0:2] == 0).all()
    assert dropped.segments.segment_ids.tolist() == [5, 7, 9]
    # what came from outside is neither background nor anything else
    assert (dropped.semantic[:, 24:] == IGNORE).all()
    assert (dropped.segments.ids[:, 24:] == 0).all()


def test_share_is_of_the_area_at_the_new_scale(sample, info):
    # at a quarter of the area the objects are whole, so nothing is lost
    shrink = {"name": "Affine", "scale": [0.5, 0.5], "p": 1.0}
    copy = apply(sample, info, shrink, min_visibility=0.9)
    assert len(copy.objects) == 2
    assert copy.objects.area.tolist() == pytest.approx([9, 12], abs=3)


def test_boxes_without_masks_move_too(sample, info):
    boxes_only = replace(
        sample, objects=replace(sample.objects, masks=None, keypoints=None), semantic=None, segments=None
    )
    copy = apply(boxes_only, info, FLIP)
    assert copy.objects.boxes.tolist() == [[22, 4, 28, 10], [2, 6, 10, 12]]
    assert copy.objects.masks is None
    shift = {"name": "Affine", "translate_px": {"x": [-6, -6], "y": [0, 0]}, "p": 1.0}
    assert apply(boxes_only, info, shift, min_visibility=0.4).objects.labels.tolist() == [1]


@pytest.mark.parametrize("number", range(1, 13))
def test_truth_of_a_copy_agrees_with_itself(sample, info, number):
    copy = apply(sample, info, *SCENE, number=number)
    thing = np.array([*info.thing_of_semantic, *[-1] * 252])
    assert np.array_equal(copy.objects.masks.any(0), thing[copy.semantic] >= 0)
    for box, mask, area, label in zip(
        copy.objects.boxes, copy.objects.masks, copy.objects.area, copy.objects.labels, strict=True
    ):
        rows, columns = np.nonzero(mask)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert area == mask.sum()
        assert (thing[copy.semantic[mask]] == label).all()
    label_of = dict(zip(copy.segments.segment_ids.tolist(), copy.segments.labels.tolist(), strict=True))
    label_of[0] = IGNORE
    assert np.array_equal(np.vectorize(label_of.get)(copy.segments.ids), copy.semantic)
    assert set(np.unique(copy.segments.ids)) - {0} == set(copy.segments.segment_ids.tolist())


@pytest.mark.parametrize("number", range(1, 6))
def test_keypoints_move_with_the_pixels(info, number):
    """A bright dot of 3 x 3 pixels is found again, by its centre of mass, where its keypoint went."""
    image = np.zeros((41, 41, 3), np.uint8)
    image[14:17, 24:27] = 255
    mask = np.zeros((1, 41, 41), bool)
    mask[0, 14:17, 24:27] = True
    points = np.tile(np.array([25.5, 15.5, 2], np.float32), (1, 3, 1))
    dot = Sample(
        image_id="dot",
        file_name="dot.png",
        image=image,
        objects=Objects(
            boxes=np.array([[24, 14, 27, 17]], np.float32),
            labels=np.array([0]),
            area=np.array([9.0]),
            iscrowd=np.array([False]),
            masks=mask,
            keypoints=points,
        ),
    )
    copy = apply(dot, info, {"name": "Affine", "rotate": [-40, 40], "scale": [0.9, 1.4], "p": 1.0}, FLIP, number=number)
    weight = copy.image[..., 0].astype(float)
    rows, columns = np.mgrid[0:41, 0:41] + 0.5
    expected = [(weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()]
    assert copy.objects.keypoints[0, 0, :2].tolist() == pytest.approx(expected, abs=0.1)


def test_copies_differ_and_each_is_the_same_every_time(sample, info):
    first, second = apply(sample, info, *SCENE, number=1), apply(sample, info, *SCENE, number=2)
    assert not np.array_equal(first.image, second.image)
    assert np.array_equal(first.image, apply(sample, info, *SCENE, number=1).image)
    assert not np.array_equal(first.image, apply(sample, info, *SCENE, number=1, seed=1).image)
    policy = compose(SCENE, WHERE, 0.3)
    in_turn = [augmented(sample, policy, info, seed=0, number=n).image for n in (2, 1)]
    assert np.array_equal(in_turn[1], first.image)


def test_grey_digit_keeps_its_one_channel(info):
    digit = Sample(image_id="7", file_name="7.png", image=np.full((8, 8, 1), 200, np.uint8), label=1)
    copy = apply(digit, info, {"name": "Affine", "rotate": [-12, 12], "p": 1.0}, {"name": "GaussNoise", "p": 1.0})
    assert copy.image.shape == (8, 8, 1)
    assert copy.image.dtype == np.uint8
    assert copy.label == 1


def test_image_without_objects_stays_one(sample, info):
    empty = replace(
        sample,
        objects=replace(
            sample.objects,
            boxes=np.zeros((0, 4), np.float32),
            labels=np.zeros(0, np.int64),
            area=np.zeros(0, np.float32),
            iscrowd=np.zeros(0, bool),
            masks=np.zeros((0, 20, 30), bool),
            keypoints=np.zeros((0, 3, 3), np.float32),
        ),
    )
    copy = apply(empty, info, FLIP)
    assert len(copy.objects) == 0
    assert copy.objects.masks.shape == (0, 20, 30)
    assert copy.objects.keypoints.shape == (0, 3, 3)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"name": "HorizontalFlipp"},
            r"transforms\.0\.name: no such transform \('HorizontalFlipp'\); did you mean 'Horiz",
        ),
        ({"p": 1.0}, r"transforms\.0\.name: no such transform \(None\)"),
        ({"name": "Affine", "rotat": 3}, r"transforms\.0\.rotat: unknown argument of Affine; did you mean 'rotate'"),
        ({"name": "HorizontalFlip", "p": 2.0}, r"transforms\.0: HorizontalFlip refuses its arguments: p: "),
        ({"name": "Affine", "rotate": "x"}, r"transforms\.0: Affine refuses its arguments: rotate"),
    ],
)
def test_fault_in_a_policy_is_one_line_that_names_it(entry, message):
    with pytest.raises(ParamsError, match=message) as caught:
        compose([entry], WHERE)
    assert "\n" not in str(caught.value)


ARGUMENTS = {
    "Affine": {"rotate": [-30, 30], "scale": [0.7, 1.3], "shear": [-10, 10]},
    "CenterCrop": {"height": 12, "width": 20},
    "Crop": {"x_min": 3, "y_min": 2, "x_max": 25, "y_max": 18},
    "LongestMaxSize": {"max_size": 44},
    "Pad": {"padding": 3},
    "PadIfNeeded": {"min_height": 32, "min_width": 40},
    "RandomCrop": {"height": 12, "width": 20},
    "RandomResizedCrop": {"size": [16, 24]},
    "Resize": {"height": 33, "width": 17},
    "SmallestMaxSize": {"max_size": 13},
}


@pytest.mark.parametrize("name", geometry.MOVING)
def test_masks_moved_as_bits_of_one_are_those_moved_one_by_one(sample, info, name, monkeypatch):
    rng = np.random.default_rng(0)
    masks = rng.random((11, 20, 30)) < 0.4
    objects = Objects(boxes_of(masks), np.arange(11) % 2, geometry.areas_of(masks), np.zeros(11, bool), masks)
    crowded = replace(sample, objects=objects)
    transform = {"name": name, **ARGUMENTS.get(name, {}), "p": 1.0}
    assert geometry.keeps_bits(compose([transform], WHERE).steps[0].transforms)
    as_bits = [apply(crowded, info, transform, min_visibility=0, number=number) for number in range(4)]
    monkeypatch.setattr(geometry, "MOVING", ())
    one_by_one = [apply(crowded, info, transform, min_visibility=0, number=number) for number in range(4)]
    for ours, theirs in zip(as_bits, one_by_one, strict=True):
        assert len(ours.objects) > 0
        assert np.array_equal(ours.objects.masks, theirs.objects.masks)
        assert np.array_equal(ours.objects.boxes, theirs.objects.boxes)
        assert np.array_equal(ours.semantic, theirs.semantic)
        assert np.array_equal(ours.segments.ids, theirs.segments.ids)


@pytest.mark.parametrize(
    ("transform", "as_bits"),
    [
        ({"name": "ColorJitter"}, True),
        ({"name": "OneOf", "transforms": [{"name": "HorizontalFlip"}, {"name": "Blur"}]}, True),
        ({"name": "OneOf", "transforms": [{"name": "HorizontalFlip"}, {"name": "Morphological"}]}, False),
        ({"name": "Affine", "mask_interpolation": 1}, False),  # cv2.INTER_LINEAR
        ({"name": "Resize", "height": 9, "width": 9, "area_for_downscale": "image"}, True),
        ({"name": "Resize", "height": 9, "width": 9, "area_for_downscale": "image_mask"}, False),
        ({"name": "Affine", "fill_mask": 1}, False),
        ({"name": "ElasticTransform"}, False),
    ],
)
def test_masks_become_bits_only_where_whole_values_move(transform, as_bits):
    assert geometry.keeps_bits(compose([transform], WHERE).steps[0].transforms) is as_bits


@pytest.mark.parametrize("option", [{"area_for_downscale": "image_mask"}, {"mask_interpolation": 1}])
def test_label_maps_are_never_blended(sample, info, option):
    resize = {"name": "Resize", "height": 9, "width": 9, **option}
    policy = compose([{"name": "OneOf", "transforms": [FLIP, resize]}], WHERE)
    with pytest.raises(
        ParamsError, match=r"transforms: a label map would get numbers of other classes; fix: leave mas"
    ):
        policy.check(info, WHERE)
    policy.check(replace(info, tasks=["detection", "instance"]), WHERE)
    # masks of objects are 0 or 1, moved one by one: 20 x 30 pixels on 9 x 9, of which the cat has 36
    sample = replace(sample, semantic=None, segments=None)
    copy = apply(sample, replace(info, tasks=["detection", "instance"]), resize, min_visibility=0)
    assert copy.objects.masks[0].sum() == pytest.approx(36 * 81 / 600, abs=4)
    assert not (copy.objects.masks[0] & copy.objects.masks[1]).any()


def test_mirror_exchanges_sides_and_leaves_the_rest():
    assert mirror_order(["top", "right", "bottom", "left", "centre"]) == [0, 3, 2, 1, 4]
    assert mirror_order(["left_only", "nose"]) == [0, 1]


def test_seed_of_a_copy_is_fixed_for_ever():
    # sha256("0/a/1") begins with these four bytes; a change would change every augmented dataset
    assert copy_seed(0, "a", 1) == int(__import__("hashlib").sha256(b"0/a/1").hexdigest()[:8], 16)


def test_import_asks_no_network():
    code = "import pipeline.data.augmentation, os; print(os.environ['NO_ALBUMENTATIONS_UPDATE'])"
    environment = {key: value for key, value in os.environ.items() if key != "NO_ALBUMENTATIONS_UPDATE"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "1"


def test_a_policy_loads_no_torch():
    code = (
        "import sys\n"
        "from pipeline.data.augmentation import compose\n"
        f"compose([{FLIP!r}], {WHERE!r})\n"
        "print('albumentations' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
