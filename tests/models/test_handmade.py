import numpy as np
import pytest

from pipeline.errors import ParamsError, PipelineError
from pipeline.models import extractors, handmade
from pipeline.models.handmade import ColourHistogram, Hog, VisualWords
from pipeline.params import HANDMADE_BACKBONES


def test_histogram_of_two_pixels_by_hand():
    image = np.array([[[0, 255, 0], [255, 127, 128]]], np.uint8)
    found = ColourHistogram(2, 3, bins=2)([np.repeat(image, 2, axis=0)])[0]
    # green lies in cell (0, 1, 0) = 2, the other in (1, 0, 1) = 5, for 127 is still in the lower half
    assert found.tolist() == [0, 0, 0.5, 0, 0, 0.5, 0, 0]


def test_histogram_of_grey_values_and_of_hues():
    grey = np.array([[0, 63], [64, 255]], np.uint8)[..., None]
    assert ColourHistogram(2, 1, bins=4)([grey])[0].tolist() == [0.5, 0.25, 0, 0.25]
    bright, dark = (np.full((2, 2, 3), colour, np.uint8) for colour in ((250, 0, 0), (140, 0, 0)))
    rgb, hsv = (ColourHistogram(2, 3, bins=2, space=space)([bright, dark]) for space in ("rgb", "hsv"))
    assert rgb[0].argmax() == rgb[1].argmax() == 4  # both of the upper half of red
    # hue 0 and full saturation: cell (0, 1, 1) = 3 for both
    assert hsv.argmax(1).tolist() == [3, 3]


def test_histogram_knows_no_places_but_by_its_grid():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    turned = np.ascontiguousarray(image[::-1, ::-1])
    plain, cut = ColourHistogram(8, 3), ColourHistogram(8, 3, grid=2)
    assert np.array_equal(*plain([image, turned]))
    first, second = cut([image, turned])
    assert cut.dimension == len(first) == 4 * plain.dimension
    assert np.array_equal(first.reshape(4, -1)[::-1], second.reshape(4, -1))  # the squares have changed places


def test_hog_of_a_ramp_has_one_direction():
    ramp = np.tile(np.arange(0, 160, 10, dtype=np.uint8), (16, 1))[
        ..., None
    ]  # rises to the right: gradient at 0 degrees
    hog = Hog(16, 1, cell=8, orientations=9, block=2)
    found = hog([ramp])[0].reshape(4, 9)
    assert hog.dimension == found.size
    # four equal cells of one block: L2-Hys of (a, a, a, a) cuts 1/2 to 0.2 and brings it to length 1 again
    assert found[:, 0] == pytest.approx(np.full(4, 0.5), abs=1e-4)
    assert np.abs(found[:, 1:]).max() < 1e-6
    turned = hog([np.ascontiguousarray(ramp.transpose(1, 0, 2))])[0].reshape(4, 9)
    assert (turned.argmax(1) == 4).all()  # 90 degrees lies in the fifth of nine bins


def test_hog_does_not_see_light_and_contrast():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 100, (16, 16, 3)).astype(np.uint8)
    hog = Hog(16, 3, cell=4)
    first, second = hog([image, image * 2 + 50])
    assert first == pytest.approx(second, abs=1e-3)
    assert hog.dimension == len(first) == 3 * 3 * 4 * 9


def stripes(across):
    """8x8: stripes of two pixels, down or across."""
    lines = np.tile(np.repeat([0, 200], 2), 2).astype(np.uint8)
    image = np.tile(lines, (8, 1))
    return (image.T if across else image)[..., None].copy()


def test_words_are_the_planted_patches():
    words = VisualWords(8, 1, words=2, patch=4, stride=4, grid=1)
    words.learn([stripes(False), stripes(True)] * 3, seed=0)
    down = stripes(False)[:4, :4].astype(np.float32).reshape(-1)
    down = (down - 100) / np.sqrt(100**2 + VisualWords.CONTRAST)  # mean 100, standard deviation 100
    codebook = words.state["codebook"]
    assert min(np.abs(codebook - down).max(1)) < 1e-5
    first, second = words([stripes(False), stripes(True)])
    assert sorted([first.tolist(), second.tolist()]) == [[0, 1], [1, 0]]
    mixed = stripes(False)
    mixed[:, 4:] = stripes(True)[:, :4]
    assert words([mixed])[0].tolist() == [0.5, 0.5]
    assert VisualWords(8, 1, words=2, patch=4, stride=4, grid=2).dimension == 8


def test_words_do_not_depend_on_brightness_and_are_the_same_each_time():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 100, (16, 16, 3)).astype(np.uint8) for _ in range(6)]
    made = [VisualWords(16, 3, words=5, num_patches=100) for _ in range(2)]
    for one in made:
        one.learn(iter(images), seed=3)
    assert made[0].state["codebook"].tobytes() == made[1].state["codebook"].tobytes()
    first, second = made[0]([images[0], images[0] + 100])
    assert np.array_equal(first, second)
    assert first.reshape(4, 5).sum(1) == pytest.approx(np.ones(4))


def test_the_nearest_word_is_that_of_a_slow_search():
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (12, 12, 3)).astype(np.uint8)
    words = VisualWords(12, 3, words=7, patch=4, stride=3, grid=1)
    words.state = {"codebook": rng.normal(0, 1, (7, 48)).astype(np.float32)}
    counts = np.zeros(7)
    for top in range(0, 9, 3):
        for left in range(0, 9, 3):
            patch = image[top : top + 4, left : left + 4].astype(np.float64).reshape(-1)
            patch = (patch - patch.mean()) / np.sqrt(patch.var() + VisualWords.CONTRAST)
            counts[((patch - words.state["codebook"]) ** 2).sum(1).argmin()] += 1
    assert words([image])[0] == pytest.approx(counts / 9)


def test_what_cannot_be_is_said_in_one_line():
    with pytest.raises(ParamsError, match=r"image_size 8: smaller than a block .*; fix: image_size of at least 16"):
        Hog(8, 3)
    with pytest.raises(PipelineError, match="visual_words: fewer unlike patches than 100 words"):
        VisualWords(8, 1).learn([np.zeros((8, 8, 1), np.uint8)], seed=0)
    make = {"options": {}, "where": "features.toy", "channels": 3}
    with pytest.raises(ParamsError, match=r"features.toy.weights: hog has none \('installed'\)"):
        extractors.extractor("hog", "installed", 32, **make)
    with pytest.raises(ParamsError, match=r"features.toy.options.bin: unknown key; did you mean 'bins'"):
        extractors.extractor("colour_histogram", "none", 32, **{**make, "options": {"bin": 3}})
    with pytest.raises(ParamsError, match=r"features.toy.options: pixels has none"):
        extractors.extractor("pixels", "none", 32, **{**make, "options": {"bins": 3}})


@pytest.mark.parametrize("name", sorted(handmade.BACKBONES))
@pytest.mark.parametrize("channels", [1, 3])
def test_every_hand_made_backbone_keeps_the_contract_of_an_extractor(name, channels):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (20, 30, channels)).astype(np.uint8) for _ in range(5)]
    made = extractors.extractor(name, "none", 24, options={}, where="features.toy", channels=channels)
    state = extractors.learnt(made, images, 0)
    assert bool(state) == (name == "visual_words")
    found = made(images)
    assert found.shape == (5, made.dimension)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert np.array_equal(made(images[2:3])[0], found[2])  # it does not depend on the batch
    again = extractors.extractor(name, "none", 24, options={}, where="features.toy", channels=channels, state=state)
    assert np.array_equal(again(images), found)


def test_what_is_no_network_is_known_without_loading_it():
    assert set(HANDMADE_BACKBONES) == {"pixels", *handmade.BACKBONES}
