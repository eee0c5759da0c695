import io

import numpy as np
import pytest
from PIL import Image

from pipeline.data.corruptions import CORRUPTIONS, GROUPS, SEVERITIES, STRENGTHS, corrupted


@pytest.fixture(scope="module")
def photo():
    import skimage.data

    return np.asarray(Image.fromarray(skimage.data.astronaut()).resize((112, 96)))


def under(image, name, severity, image_id="a"):
    return corrupted(image, name, severity, seed=0, image_id=image_id).astype(float)


def test_the_fifteen_stand_in_four_groups_with_five_strengths_each():
    assert list(CORRUPTIONS) == [name for names in GROUPS.values() for name in names] == list(STRENGTHS)
    assert len(CORRUPTIONS) == 15
    assert {len(strengths) for strengths in STRENGTHS.values()} == {5}


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(96, 112, 3), (28, 28, 1), (1, 1, 3), (4, 90, 1)])
def test_size_and_kind_stay_and_the_same_image_comes_each_time(name, shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    first = corrupted(image, name, 3, seed=0, image_id="a")
    assert first.shape == shape
    assert first.dtype == np.uint8
    assert np.array_equal(first, corrupted(image, name, 3, seed=0, image_id="a"))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severity_grows(photo, name):
    if name == "elastic_transform":  # its first two severities bend the whole, the others the parts, as in ImageNet-C
        pairs = [(3, 5)]
    elif name in ("glass_blur", "snow", "frost", "fog"):  # several strengths that change against each other
        pairs = [(1, 5)]
    else:
        pairs = [(1, 2), (2, 3), (3, 4), (4, 5)]
    error = {
        severity: np.mean([np.abs(under(photo, name, severity, str(i)) - photo).mean() for i in range(3)])
        for severity in SEVERITIES
    }
    for less, more in pairs:
        assert 0.5 < error[less] < error[more]


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "impulse_noise", "snow", "frost", "fog"])
def test_random_ones_differ_between_images(photo, name):
    assert not np.array_equal(under(photo, name, 3, "a"), under(photo, name, 3, "b"))


def test_gaussian_noise_has_the_deviation_of_the_table():
    grey = np.full((200, 200, 3), 128, np.uint8)
    noise = under(grey, "gaussian_noise", 2) - 128
    assert noise.std() == pytest.approx(0.12 * 255, rel=0.01)  # clipping starts at four deviations
    assert noise.mean() == pytest.approx(0, abs=0.5)


def test_shot_noise_is_poisson():
    grey = np.full((200, 200, 3), 51, np.uint8)  # 0.2 of full brightness: 12 of 60 photons
    found = under(grey, "shot_noise", 1) / 255 * 60
    assert found.mean() == pytest.approx(12, rel=0.01)
    assert found.var() == pytest.approx(12, rel=0.03)


def test_impulse_noise_is_half_salt_and_half_pepper():
    found = under(np.full((200, 200, 3), 128, np.uint8), "impulse_noise", 5)
    assert (found != 128).mean() == pytest.approx(0.27, rel=0.02)
    assert (found == 255).mean() == pytest.approx((found == 0).mean(), rel=0.03)


def test_contrast_shrinks_the_distance_to_the_mean_of_each_channel():
    image = np.zeros((2, 2, 3), np.uint8)
    image[0] = 200, 100, 50  # means 100, 50, 25: at 0.4 of the distance 100 + 40, 50 + 20, 25 + 10
    assert under(image, "contrast", 1)[0, 0].tolist() == [140, 70, 35]
    assert under(image, "contrast", 1)[1, 1].tolist() == [60, 30, 15]


def test_brightness_keeps_hue_and_saturation():
    import colorsys

    image = np.array([[[100, 50, 25], [0, 0, 0]]], np.uint8)
    found = under(image, "brightness", 2) / 255
    before, after = (colorsys.rgb_to_hsv(*colour) for colour in (image[0, 0] / 255, found[0, 0]))
    assert after == pytest.approx((before[0], before[1], before[2] + 0.2), abs=0.01)
    assert found[0, 1].tolist() == pytest.approx([0.2] * 3, abs=0.002)


@pytest.mark.parametrize("name", ["defocus_blur", "motion_blur", "zoom_blur", "glass_blur"])
def test_blur_leaves_an_even_image_and_its_brightness(photo, name):
    even = np.full((60, 80, 3), 77, np.uint8)
    assert np.abs(under(even, name, 5) - 77).max() <= 1
    assert under(photo, name, 3).mean() == pytest.approx(photo.mean(), rel=0.05)


def test_defocus_spreads_a_point_over_a_disc():
    image = np.zeros((224, 224, 1), np.uint8)
    image[110:114, 110:114] = 255
    found = under(image, "defocus_blur", 3)[..., 0]  # radius 6
    rows, columns = np.nonzero(found > 0)
    assert 16 <= np.ptp(rows) + 1 <= 18  # 4 + 2 * 6, and the soft edge
    assert np.ptp(rows) == np.ptp(columns)
    assert found.sum() == pytest.approx(16 * 255, rel=0.05)


def test_lengths_grow_with_the_image():
    reach = []
    for side in (112, 224, 448):
        image = np.zeros((side, side, 1), np.uint8)
        image[side // 2] = 255
        reach.append(np.count_nonzero(under(image, "defocus_blur", 5)[:, side // 2, 0] > 1))
    assert reach[1] == pytest.approx(2 * reach[0], abs=2)
    assert reach[2] == pytest.approx(2 * reach[1], abs=3)


def test_jpeg_and_pixelate_are_those_of_pillow(photo):
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "JPEG", quality=15)
    assert np.array_equal(under(photo, "jpeg_compression", 3), np.asarray(Image.open(buffer)))
    small = Image.fromarray(photo).resize((int(112 * 0.4), int(96 * 0.4)), Image.Resampling.BOX)
    assert np.array_equal(under(photo, "pixelate", 3), np.asarray(small.resize((112, 96), Image.Resampling.BOX)))


def test_elastic_moves_pixels_little_and_invents_none():
    image = np.zeros((100, 100, 1), np.uint8)
    image[:, 50:] = 200
    found = under(image, "elastic_transform", 3)[..., 0]
    assert found.max() <= 200
    edges = np.array([np.argmax(row > 100) for row in found])
    assert 0 < np.abs(edges - 50).max() <= 15
