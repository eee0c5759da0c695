import numpy as np
import pytest

from pipeline.data import openmoji
from pipeline.data.datasets import digits, openmoji_icons, openmoji_scenes
from pipeline.data.store import Store
from pipeline.errors import ParamsError
from pipeline.structures import SPLITS

SIZES = {"num_train": 8, "num_val": 3, "num_test": 4, "image_size": 128}


def read_bytes(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw") / "scenes"
    openmoji_scenes.prepare(folder, seed=0, **SIZES)
    return Store(folder)


@pytest.fixture(scope="module")
def samples(scenes):
    return [scenes.split(name).read(i, masks=True) for name in SPLITS for i in range(len(scenes.split(name)))]


def test_digits_are_scikit_learns_scaled_to_bytes(tmp_path):
    from sklearn.datasets import load_digits

    digits.prepare(tmp_path / "digits", seed=0)
    store, original = Store(tmp_path / "digits"), load_digits()
    assert store.info.counts == {"train": 1258, "val": 270, "test": 269}
    seen = set()
    for name in SPLITS:
        for sample in store.split(name):
            index = int(sample.image_id)
            seen.add(index)
            assert sample.label == original.target[index]
            # 16 of the source is 255 here
            assert np.abs(sample.image[..., 0] * (16 / 255) - original.images[index]).max() < 0.04
    assert len(seen) == 1797


def test_digits_split_has_the_same_shares_in_every_class():
    labels = np.repeat([3, 7], [100, 40])
    names = np.array(digits.split_names(labels, {"train": 0.7, "val": 0.15, "test": 0.15}, seed=0))
    for label, counts in ((3, (70, 15, 15)), (7, (28, 6, 6))):
        assert tuple((names[labels == label] == name).sum() for name in SPLITS) == counts


def test_digits_that_are_not_used_leave_the_test_split_as_it_is(tmp_path):
    digits.prepare(tmp_path / "many", seed=0)
    digits.prepare(tmp_path / "few", seed=0, train=0.05, val=0.15, unused=0.65)
    many, few = Store(tmp_path / "many"), Store(tmp_path / "few")
    assert few.split("test").column("image_id") == many.split("test").column("image_id")
    assert set(few.split("train").column("image_id")) < set(many.split("train").column("image_id"))
    assert few.info.counts["train"] == 90
    # of 174 to 183 images of a class 5% are 8.7 to 9.15: 9 each
    assert np.bincount(few.split("train").column("label")).tolist() == [9] * 10


def test_digits_shares_that_leave_no_test_image_are_refused(tmp_path):
    with pytest.raises(ParamsError, match=r"datasets\.digits\.options: train and val leave no image for test"):
        digits.prepare(tmp_path / "digits", seed=0, train=0.8, val=0.2)


def test_icons_fill_the_square_up_to_the_margin(tmp_path):
    openmoji_icons.prepare(tmp_path / "icons", seed=0, image_size=64, margin=0.125)
    store = Store(tmp_path / "icons")
    assert sum(store.info.counts.values()) == len(openmoji.icons())
    for sample in store.split("test"):
        rows, columns = np.nonzero((sample.image < 250).any(-1))
        longer = max(np.ptp(rows), np.ptp(columns)) + 1
        assert 46 <= longer <= 50, sample.image_id  # 64 less an eighth on each side is 48
        assert abs((columns.min() + columns.max() + 1) / 2 - 32) <= 1.5


def test_same_seed_same_bytes_and_another_seed_others(tmp_path):
    small = {"num_train": 2, "num_val": 1, "num_test": 1, "image_size": 64}
    for name, seed in (("a/x", 0), ("b/x", 0), ("c/x", 1)):
        openmoji_scenes.prepare(tmp_path / name, seed=seed, **small)
    assert read_bytes(tmp_path / "a/x") == read_bytes(tmp_path / "b/x")
    assert read_bytes(tmp_path / "a/x") != read_bytes(tmp_path / "c/x")


def test_scene_does_not_depend_on_how_many_there_are(tmp_path, scenes):
    openmoji_scenes.prepare(tmp_path / "scenes", seed=0, **{**SIZES, "num_train": 5, "num_val": 1, "num_test": 1})
    split = Store(tmp_path / "scenes").split("train")
    assert [split.row(i) for i in range(5)] == [scenes.split("train").row(i) for i in range(5)]


def test_boxes_are_tight_around_the_visible_masks(samples):
    for sample in samples:
        for box, mask, area in zip(sample.objects.boxes, sample.objects.masks, sample.objects.area, strict=True):
            x1, y1, x2, y2 = box.astype(int)
            # nothing outside, and each side of the box touches the mask
            assert mask.sum() == mask[y1:y2, x1:x2].sum() == area
            assert mask[y1, :].any()
            assert mask[y2 - 1, :].any()
            assert mask[:, x1].any()
            assert mask[:, x2 - 1].any()


def test_masks_do_not_overlap_and_are_the_things_of_the_semantic_map(scenes, samples):
    thing = np.array(scenes.info.thing_of_semantic)
    for sample in samples:
        count = sample.objects.masks.sum(0)
        assert count.max() == 1
        assert np.array_equal(count == 1, thing[sample.semantic] >= 0)
        for mask, label in zip(sample.objects.masks, sample.objects.labels, strict=True):
            assert (thing[sample.semantic[mask]] == label).all()


def test_panoptic_segments_partition_the_image_and_agree_with_the_semantic_map(scenes, samples):
    for sample in samples:
        segments = sample.segments
        assert sorted(np.unique(segments.ids)) == sorted(segments.segment_ids)
        assert (segments.ids > 0).all()
        label_of = dict(zip(segments.segment_ids.tolist(), segments.labels.tolist(), strict=True))
        assert np.array_equal(np.vectorize(label_of.get)(segments.ids), sample.semantic)
        things = [i for i, label in label_of.items() if scenes.info.thing_of_semantic[label] >= 0]
        masks = {mask.tobytes() for mask in sample.objects.masks}
        assert {(segments.ids == i).tobytes() for i in things} == masks


def test_objects_are_large_enough_to_be_seen(samples):
    for sample in samples:
        assert len(sample.objects) >= 1
        assert sample.objects.area.min() >= openmoji_scenes.MIN_AREA * sample.image.shape[0] ** 2


def test_keypoints_seen_lie_on_the_box_or_beside_nothing(samples):
    for sample in samples:
        for box, points in zip(sample.objects.boxes, sample.objects.keypoints, strict=True):
            seen = points[points[:, 2] == 2]
            # a seen extreme point belongs to the visible part, up to a pixel of resampling
            assert (seen[:, :2] >= box[:2] - 1.5).all()
            assert (seen[:, :2] <= box[2:] + 1.5).all()
            assert (points[points[:, 2] == 0] == 0).all()


def test_icon_without_turn_has_its_keypoints_on_the_sides_of_its_box():
    silhouette = np.zeros((9, 9), bool)
    silhouette[2:7, 3] = True
    silhouette[4, 1:8] = True  # a cross of rows 2..6 and columns 1..7 around (3, 4)
    top, right, bottom, left, centre = openmoji_scenes.extremes(silhouette).tolist()
    assert top == [3.5, 2.5]
    assert right == [7.5, 4.5]
    assert bottom == [3.5, 6.5]
    assert left == [1.5, 4.5]
    # columns 1..7 add up to 28, and 3 four times more: 40 / 11; rows are even around 4
    assert centre == pytest.approx([40 / 11 + 0.5, 4.5])


def test_captions_say_where_the_larger_object_is():
    masks = np.zeros((2, 20, 20), bool)
    masks[0, 12:18, 1:9] = True
    masks[1, 12:16, 12:18] = True
    boxes = np.array([[1, 12, 9, 18], [12, 12, 18, 16]], np.float32)
    ground = np.zeros((20, 20), np.uint8)
    ground[10:] = 14  # grass
    assert openmoji_scenes.captions([1, 11], boxes, masks, ground) == [
        "A bird left of a ball, on grass.",
        "A bird and a ball in front of grass.",
    ]
    assert openmoji_scenes.captions([9, 9], boxes, masks, np.zeros_like(ground)) == [
        "A piece of clothing left of a piece of clothing.",
        "Two pieces of clothing in front of a photograph.",
    ]


def test_backgrounds_of_two_splits_share_no_pixel():
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        a, b = openmoji_scenes.PARTS[first], openmoji_scenes.PARTS[second]
        assert any(low_a >= high_b or low_b >= high_a for (low_a, high_a), (low_b, high_b) in zip(a, b, strict=True))
