from dataclasses import replace

import numpy as np
import pytest

from pipeline.data.mixing import CopyPaste, Mixup, Mosaic, overlaid
from pipeline.structures import IGNORE, Objects, Sample, Segments


def shaded(sample, value):
    return replace(sample, image=np.full_like(sample.image, value))


def test_pasting_takes_pixels_truth_and_sight_from_what_is_below(sample, info):
    # on top: a dog at rows 4..9, columns 4..9; of the cat (columns 2..7, rows 4..9) two columns of six stay
    front = np.zeros((20, 30), bool)
    front[4:10, 4:10] = True
    top = Sample(
        "t",
        "t.png",
        np.zeros((20, 30, 3), np.uint8),
        objects=Objects(
            boxes=np.array([[4, 4, 10, 10]], np.float32),
            labels=np.array([1]),
            area=np.array([36.0], np.float32),
            iscrowd=np.array([False]),
            masks=front[None],
            keypoints=np.tile(np.array([5.5, 5.5, 2], np.float32), (1, 3, 1)),
        ),
        semantic=np.where(front, 2, 0).astype(np.uint8),
        segments=Segments(np.where(front, 4, 6).astype(np.int32), np.array([4, 6]), np.array([2, 0])),
    )
    kept = overlaid(sample, top, front, info, min_visibility=0.3)
    assert kept.objects.labels.tolist() == [0, 1, 1]
    assert kept.objects.boxes.tolist() == [[2, 4, 4, 10], [20, 6, 28, 12], [4, 4, 10, 10]]
    assert kept.objects.area.tolist() == [12, 48, 36]  # 36 - 24, as before, all of it
    # the cat's ears at (7.5, 4.5) lies under the dog: hidden; its nose at (2.5, 4.5) is still seen
    assert kept.objects.keypoints[0].tolist() == [[2.5, 4.5, 2], [7.5, 4.5, 1], [3.5, 9.5, 1]]
    assert (kept.image[front] == 0).all()
    assert np.array_equal(kept.image[~front], sample.image[~front])
    assert np.array_equal(kept.semantic, np.where(front, 2, sample.semantic))
    new = np.unique(kept.segments.ids[front])
    assert new.tolist() == [301]  # one above the largest
    assert dict(zip(kept.segments.segment_ids.tolist(), kept.segments.labels.tolist(), strict=True)) == {
        300: 1,
        5: 2,
        7: 3,
        9: 0,
        301: 2,
    }
    dropped = overlaid(sample, top, front, info, min_visibility=0.4)  # a third is left
    assert dropped.objects.labels.tolist() == [1, 1]
    assert (dropped.semantic[4:10, 2:4] == IGNORE).all()
    assert (dropped.segments.ids[4:10, 2:4] == 0).all()
    assert dropped.segments.segment_ids.tolist() == [5, 7, 9, 301]
    assert kept.captions is None


def test_stuff_of_both_becomes_one_segment(sample, info):
    front = np.zeros((20, 30), bool)
    front[:, 15:] = True
    mixed = overlaid(sample, replace(sample, objects=replace_none(sample)), front, info, 0.0)
    # grass and background are of one segment each, with the ids that they had below; the dog has a new id
    assert mixed.segments.segment_ids.tolist() == [7, 9, 300, 301]
    assert np.array_equal(mixed.segments.ids == 7, sample.segments.ids == 7)
    assert np.array_equal(mixed.segments.ids == 301, sample.segments.ids == 5)


def replace_none(sample):
    objects = sample.objects
    return Objects(**{name: value[:0] for name, value in vars(objects).items()})


def test_mosaic_shows_four_samples_each_in_its_quarter(sample, info):
    shades = [shaded(sample, value) for value in (10, 20, 30, 40)]
    for seed in range(5):
        mosaic = Mosaic(1.0, (0.4, 1.0))(shades[0], shades[1:], info, np.random.default_rng(seed), 0.0)
        image = mosaic.image[..., 0]
        assert image.shape == (20, 30)
        rows, columns = np.flatnonzero(image[:, 0] == 10).size, np.flatnonzero(image[0] == 10).size
        # the point lies in the middle half: rows 5..15, columns 7..22
        assert 5 <= rows <= 15
        assert 7 <= columns <= 22
        expected = np.where(np.arange(30) < columns, [[10]] * 20, 20)
        expected[rows:] = np.where(np.arange(30) < columns, 30, 40)
        assert np.array_equal(image, expected)
        assert (mosaic.semantic != IGNORE).all()
        assert mosaic.image_id == "a"


def test_mosaic_of_boxes_alone_keeps_them_within_their_quarter(sample, info):
    boxed = replace(sample, objects=replace(sample.objects, masks=None, keypoints=None), semantic=None, segments=None)
    mosaic = Mosaic(1.0, (1.0, 1.0))(boxed, [boxed] * 3, info, np.random.default_rng(0), 0.1)
    boxes = mosaic.objects.boxes
    assert 4 <= len(boxes) <= 8
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= [30, 20]).all()
    assert mosaic.objects.masks is None


def test_pasted_objects_are_cut_out_along_their_masks(sample, info):
    other = shaded(sample, 200)
    base = shaded(sample, 100)
    step = CopyPaste(1.0, max_objects=1, scale=(1.0, 1.0))
    for seed in range(6):
        mixed = step(base, [other], info, np.random.default_rng(seed), 0.0)
        front = mixed.image[..., 0] == 200
        assert set(np.unique(mixed.image)) <= {100, 200}
        if front.any():
            assert np.array_equal(mixed.objects.masks[-1], front)
            assert mixed.objects.area[-1] == front.sum()
            assert (mixed.semantic[front] == mixed.objects.labels[-1] + 1).all()  # cat is 1, dog 2 in the label map


def test_crowds_are_not_pasted(sample, info):
    crowd = replace(sample, objects=replace(sample.objects, iscrowd=np.ones(2, bool)))
    assert CopyPaste(1.0, 3, (1.0, 1.0))(sample, [crowd], info, np.random.default_rng(0), 0.0) is sample


def test_mixup_blends_pixels_and_keeps_the_objects_of_both(sample, info):
    one, other = (
        replace(shaded(sample, value), semantic=None, segments=None, target=t) for value, t in ((0, 1), (200, 3))
    )
    mixed = Mixup(1.0, alpha=1.5)(one, [other], info, np.random.default_rng(3), 0.3)
    share = np.random.default_rng(3).beta(1.5, 1.5)
    assert np.unique(mixed.image).tolist() == [round(200 * (1 - share))]
    assert mixed.target == pytest.approx(share * 1 + (1 - share) * 3)
    assert mixed.objects.labels.tolist() == [0, 1, 0, 1]
    assert mixed.objects.boxes.tolist() == sample.objects.boxes.tolist() * 2


def test_partner_of_another_size_is_brought_to_that_of_the_first(sample, info):
    small = replace(sample, image=np.zeros((10, 15, 3), np.uint8), objects=None, semantic=None, segments=None)
    wide = replace(sample, objects=None, semantic=None, segments=None)
    for step in (Mixup(1.0, 1.0), Mosaic(1.0, (0.5, 1.0))):
        partners = [small] * step.num_partners
        assert step(wide, partners, info, np.random.default_rng(0), 0.3).image.shape == (20, 30, 3)
