import matplotlib
import numpy as np
import pytest
from PIL import Image

from pipeline.models.regression import linear
from pipeline.structures import DatasetInfo
from pipeline.visualise import complexity, descent, draw, initialisation, points
from pipeline.visualise.layer_costs import Layer

RED, BLUE = "#ff0000", "#0000ff"


def grey(height, width, value=100):
    return np.full((height, width, 3), value, np.uint8)


def test_box_is_drawn_on_its_outermost_pixels_and_input_is_left_alone():
    image = grey(20, 20)
    result = draw.boxes(image, np.array([[2, 3, 8, 10]]), colours=[RED])
    red = (result == (255, 0, 0)).all(-1)
    # xyxy 2, 3, 8, 10 covers columns 2..7 and rows 3..9: its border has 2 * 6 + 2 * 7 - 4 pixels
    assert red.sum() == 22
    assert red[3, 2:8].all()
    assert red[9, 2:8].all()
    assert red[3:10, 2].all()
    assert red[3:10, 7].all()
    assert (image == 100).all()


def test_scaled_box_lies_at_scaled_place():
    result = draw.boxes(grey(10, 12), np.array([[2, 3, 6, 8]]), colours=[RED], scale=3)
    rows, columns = np.nonzero((result == (255, 0, 0)).all(-1))
    assert result.shape == (30, 36, 3)
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (6, 9, 17, 23)


def test_no_boxes_leave_the_image_as_it_is():
    image = grey(9, 9)
    assert np.array_equal(draw.boxes(image, np.zeros((0, 4)), captions=[], colours=[]), image)


def test_label_map_mixes_by_alpha_and_leaves_unscored_pixels():
    label_map = np.array([[0, 1, 255]])
    result = draw.label_map(grey(1, 3), label_map, colours=[RED, BLUE], alpha=0.5)
    # (100 + 255) / 2 = 177.5, numpy rounds half to even: 178; (100 + 0) / 2 = 50
    assert result.tolist() == [[[178, 50, 50], [50, 50, 178], [100, 100, 100]]]


def test_masks_have_full_colour_outlines_and_tinted_insides():
    mask = np.zeros((1, 7, 7), bool)
    mask[0, 1:6, 1:6] = True
    result = draw.masks(grey(7, 7), mask, colours=[BLUE], alpha=0.5)
    assert result[1, 1].tolist() == [0, 0, 255]  # outline
    assert result[3, 3].tolist() == [50, 50, 178]
    assert result[0, 0].tolist() == [100, 100, 100]
    assert (result == (0, 0, 255)).all(-1).sum() == 16  # the border of 5 x 5


def test_keypoints_absent_ones_are_not_drawn():
    points = np.array([[[5, 5, 2], [15, 15, 0]]], float)
    result = draw.keypoints(grey(20, 20), points, skeleton=[[0, 1]], colours=[RED])
    assert result[5, 5].tolist() == [255, 0, 0]
    assert (result[10:] == 100).all()


def test_hidden_keypoint_is_hollow():
    result = draw.keypoints(grey(20, 20), np.array([[[10, 10, 1]]], float), skeleton=[], colours=[RED])
    assert result[10, 10].tolist() == [255, 255, 255]


def test_heat_is_strongest_where_it_is_one():
    result = draw.heat(grey(1, 2), np.array([[0.0, 1.0]]), alpha=1.0)
    assert result[0, 1].tolist() == [0xFC, 0xFF, 0xA4]  # the last stop alone
    assert result[0, 0].tolist() == [50, 50, 52]  # half of grey 100 and half of 000004
    assert np.array_equal(draw.heat(grey(2, 2), np.ones((2, 2)), alpha=0.0), grey(2, 2))


def test_grid_keeps_pixels_of_small_images_square():
    image = np.zeros((8, 8, 1), np.uint8)
    image[0, 0] = 200
    sheet = draw.grid([image], columns=3, cell=64)
    assert (sheet == 200).all(-1).sum() == 64  # one pixel became 8 x 8, unblurred


def test_grid_has_a_cell_for_each_image_and_room_for_captions():
    images = [grey(64, 64, 10 * n) for n in range(5)]
    plain = draw.grid(images, columns=2, cell=64)
    captioned = draw.grid(images, columns=2, captions=["one", "two", "three", "four", "five"], cell=64)
    assert captioned.shape[1] == plain.shape[1]
    assert captioned.shape[0] > plain.shape[0]
    for number in range(5):
        assert ((plain == 10 * number).all(-1)).sum() == 64 * 64
    assert (plain[0] == 255).all()


def test_saved_picture_is_small_without_metadata_and_the_same_each_time(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    draw.save(tmp_path / "a.png", noise, max_bytes=20_000)
    draw.save(tmp_path / "b.png", noise, max_bytes=20_000)
    data = (tmp_path / "a.png").read_bytes()
    assert data == (tmp_path / "b.png").read_bytes()
    assert len(data) <= 20_000
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.info == {}


def test_saved_picture_that_fits_keeps_every_pixel(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    draw.save(tmp_path / "a.png", noise)
    with Image.open(tmp_path / "a.png") as picture:
        assert np.array_equal(np.asarray(picture), noise)


def test_palette_has_no_colour_twice():
    assert len(set(draw.palette(40))) == 40


def scatter(path):
    points.scatter(path, np.eye(2), np.array([0, 1]), DatasetInfo("toy", [], ["a", "b"], 1, "", "", ""))


def bars(path):
    complexity.bars(path, [Layer("first", "Linear", (3,), 12, 24, 12, receptive_field=(8, 8))])


def statistics(path):
    initialisation._draw_statistics(path, {"zeros": [np.arange(9.0), np.arange(4.0)]})


def histograms(path):
    initialisation._draw_histograms(path, {"zeros": [np.arange(9.0), np.arange(4.0)]})


def surface(path):
    descent._draw(path, linear.fit(np.array([[0.0], [1], [3]]), np.array([1.0, 2, 2]), ["a"], 0), "a")


@pytest.mark.parametrize("drawn", [scatter, bars, statistics, histograms, surface])
def test_a_figure_is_the_same_whatever_a_users_matplotlibrc_says(tmp_path, drawn):
    drawn(tmp_path / "one.png")
    theirs = {"font.size": 17, "axes.facecolor": "red", "savefig.dpi": 30, "lines.linewidth": 9, "axes.grid": True}
    with matplotlib.rc_context(theirs):
        drawn(tmp_path / "other.png")
        assert matplotlib.rcParams["font.size"] == 17
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()
