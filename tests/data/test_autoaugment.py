from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from pipeline.data.augmentation import augmented, compose
from pipeline.data.autoaugment import MOVING, Automatic
from pipeline.structures import Objects, Sample

WHERE = "augmentations.x.transforms"


def apply(sample, info, entry, number=1):
    return augmented(sample, compose([entry], WHERE, 0.3), info, seed=0, number=number)


@pytest.fixture
def dot():
    """A bright square of 5 x 5 pixels on grey, 61 x 41, that is an object with keypoints at its centre."""
    image = np.full((41, 61, 3), 50, np.uint8)
    image[12:17, 23:28] = 250
    mask = np.zeros((1, 41, 61), bool)
    mask[0, 12:17, 23:28] = True
    return Sample(
        "dot",
        "dot.png",
        image,
        objects=Objects(
            boxes=np.array([[23, 12, 28, 17]], np.float32),
            labels=np.array([0]),
            area=np.array([25.0], np.float32),
            iscrowd=np.array([False]),
            masks=mask,
            keypoints=np.tile(np.array([25.5, 14.5, 2], np.float32), (1, 3, 1)),
        ),
    )


@pytest.mark.parametrize("operation", MOVING)
@pytest.mark.parametrize("number", [1, 2, 3])
def test_masks_boxes_and_keypoints_go_where_the_pixels_go(monkeypatch, info, dot, operation, number):
    space = v2.RandAugment._AUGMENTATION_SPACE
    monkeypatch.setattr(v2.RandAugment, "_AUGMENTATION_SPACE", {operation: space[operation]})
    entry = {"preset": "randaugment", "num_ops": 1, "magnitude": 12, "fill": 50}
    copy = apply(dot, info, entry, number)
    assert not np.array_equal(copy.image, dot.image)
    weight = np.maximum(copy.image[..., 0].astype(float) - 50, 0)  # torchvision darkens the seam to the fill
    rows, columns = np.mgrid[0:41, 0:61] + 0.5
    centre = [(weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()]
    assert copy.objects.keypoints[0, 0, :2].tolist() == pytest.approx(centre, abs=0.1)
    mask = copy.objects.masks[0]
    assert (copy.image[mask][:, 0] > 100).mean() > 0.8
    assert [columns[mask].mean(), rows[mask].mean()] == pytest.approx(centre, abs=0.6)
    boxed = replace(dot, objects=replace(dot.objects, masks=None, keypoints=None))
    box = apply(boxed, info, entry, number).objects.boxes[0]
    assert [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2] == pytest.approx(centre, abs=0.1)
    inside = columns[mask].min() - 0.5, rows[mask].min() - 0.5, columns[mask].max() + 0.5, rows[mask].max() + 0.5
    assert box.tolist() == pytest.approx(inside, abs=1.2)


@pytest.mark.parametrize(
    ("member", "cls", "options"),
    [
        ("autoaugment", v2.AutoAugment, {"policy": v2.AutoAugmentPolicy.SVHN}),
        ("randaugment", v2.RandAugment, {"num_ops": 3, "magnitude": 15}),
        ("trivialaugment", v2.TrivialAugmentWide, {}),
    ],
)
def test_image_is_what_torchvision_alone_gives(member, cls, options):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    ours = Automatic(member, 0.0, options)
    for seed in range(6):
        ours.set_random_seed(seed)
        torch.manual_seed(__import__("random").Random(seed).getrandbits(63))
        oracle = cls(interpolation=v2.InterpolationMode.BILINEAR, fill=0.0, **options)
        expected = oracle(torch.from_numpy(image.transpose(2, 0, 1).copy())).permute(1, 2, 0).numpy()
        assert np.array_equal(ours(image=image)["image"], expected)


def test_torchs_own_random_numbers_are_left_as_they_were():
    image = np.zeros((8, 8, 3), np.uint8)
    transform = Automatic("trivialaugment", 0.0, {})
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    transform(image=image)
    assert torch.equal(torch.rand(3), expected)
