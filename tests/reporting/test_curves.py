import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from pipeline.reporting.curves import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    line_chart,
    nice_step,
    overlay,
    standing_alone,
    tick_label,
    ticks,
)


def test_the_corners_of_the_plot_are_the_extremes_of_the_data():
    # y ticks of 0..1 in fifths: 0 lies at HEIGHT - BOTTOM, 1 at TOP; x from LEFT to WIDTH - RIGHT
    svg = line_chart("loss", {"loss": [(1, 0.0), (2, 0.5), (3, 1.0)]})
    middle_x, middle_y = (LEFT + WIDTH - RIGHT) / 2, (HEIGHT - BOTTOM + TOP) / 2
    points = f"{LEFT:.1f},{HEIGHT - BOTTOM:.1f} {middle_x:.1f},{middle_y:.1f} {WIDTH - RIGHT:.1f},{TOP:.1f}"
    assert f'points="{points}"' in svg


def test_points_that_are_not_finite_are_left_out():
    svg = line_chart("t", {"a": [(1, 1.0), (2, float("nan")), (3, float("inf")), (4, 2.0)], "b": [(1, float("nan"))]})
    polyline = ET.fromstring(svg).find("polyline")
    assert polyline is not None
    assert len(polyline.attrib["points"].split()) == 2
    assert ">b<" not in svg


def test_nothing_to_draw_is_nothing():
    assert line_chart("t", {}) == ""
    assert line_chart("t", {"a": [(1, float("nan"))]}) == ""


def test_a_lone_point_is_a_dot_and_a_constant_has_an_axis():
    assert "<circle" in line_chart("t", {"a": [(1, 0.3)]})
    assert "<polyline" in line_chart("t", {"a": [(1, 0.0), (2, 0.0)]})


def test_names_are_escaped_and_the_svg_is_well_formed():
    svg = line_chart("<script>&", {'"><script>': [(1, 1.0), (2, 3.0)]}, heading="a<b")
    assert "<script" not in svg
    ET.fromstring(svg)


def test_the_legend_names_each_line_in_its_colour():
    root = ET.fromstring(line_chart("t", {f"s{index}": [(1, 1.0), (2, index)] for index in range(8)}))
    colours = [line.attrib["style"] for line in root.iter("polyline")]
    keys = [line.attrib["style"] for line in root.iter("line") if line.attrib["class"] == "key"]
    assert colours == keys
    assert colours[0] == colours[6]
    assert "stroke-dasharray" in list(root.iter("polyline"))[6].attrib


def test_epochs_have_whole_ticks():
    assert ticks(1, 3, 7, whole=True) == [1, 2, 3]
    assert ticks(1, 60, 7, whole=True) == [0, 10, 20, 30, 40, 50, 60]


@pytest.mark.parametrize("low", [-3.3, 0.0, 0.00017, 12345.0])
@pytest.mark.parametrize("span", [1e-6, 0.013, 1.0, 99.0, 4e6])
def test_ticks_enclose_the_data_in_few_even_steps(low, span):
    marks = ticks(low, low + span, 5)
    assert marks[0] <= low + 1e-9 * span + 1e-12
    assert marks[-1] >= low + span - 1e-9 * abs(low + span)
    assert 2 <= len(marks) <= 7
    steps = [b - a for a, b in pairwise(marks)]
    assert max(steps) == pytest.approx(min(steps), rel=1e-3)


@pytest.mark.parametrize(("low", "high"), [(1e-13, 3e-13), (1e-300, 9e-300), (-2e-15, 5e-16)])
def test_ticks_of_tiny_numbers_are_apart(low, high):
    marks = ticks(low, high, 5)
    assert marks[0] <= low + 1e-9 * (high - low)
    assert marks[-1] >= high - 1e-9 * (high - low)
    steps = [b - a for a, b in pairwise(marks)]
    assert 0 < max(steps) == pytest.approx(min(steps), rel=1e-2)
    assert "<polyline" in line_chart("t", {"a": [(1, low), (2, high)]})


def test_numbers_that_differ_by_rounding_are_one():
    assert ticks(1.0, 1.0 + 2e-16, 5) == ticks(1.0, 1.0, 5)


def test_steps_are_one_two_five():
    assert [nice_step(span, 5) for span in (1, 2, 5, 10)] == [0.2, 0.5, 1.0, 2.0]


def test_a_label_has_the_decimals_of_its_step():
    assert [tick_label(0.5, 0.05), tick_label(0.5, 0.5), tick_label(20, 10), tick_label(2e6, 1e6)] == [
        "0.50",
        "0.5",
        "20",
        "2e+06",
    ]


BASE = {"epoch": [1.0, 2.0, 3.0], "loss": [3.0, 2.0, 1.0], "val_loss": [3.0, 2.5, 2.0]}
HEAD = {"epoch": [1.0, 2.0], "loss": [2.0, 1.0], "top1": [0.5, 0.9]}


def test_an_overlay_has_a_colour_for_each_side_and_dashes_for_validation():
    root = ET.fromstring(overlay("t", "loss", {"base": BASE, "head": HEAD}))
    lines = [(line.attrib["style"], line.attrib.get("stroke-dasharray")) for line in root.iter("polyline")]
    first, second = "stroke:var(--series-0)", "stroke:var(--series-1)"
    assert [(style, dash is not None) for style, dash in lines] == [(first, False), (first, True), (second, False)]
    keys = [line.attrib for line in root.iter("line") if line.attrib["class"] == "key"]
    assert [(key["style"], "stroke-dasharray" in key) for key in keys[:2]] == [(first, False), (second, False)]
    assert keys[2]["style"] == "stroke:var(--quiet)"
    assert "stroke-dasharray" in keys[2]
    assert [text.text for text in root.iter("text")][-3:] == ["base", "head", "validation"]


def test_an_overlay_says_where_all_of_it_is_of_validation():
    scores = {"epoch": [1.0, 2.0], "val_top1": [0.3, 0.4]}
    root = ET.fromstring(overlay("t", "top1", {"base": scores, "head": scores}))
    assert [text.text for text in root.iter("text")][-3:] == ["base", "head", "validation"]


def test_a_lone_point_of_validation_is_a_ring():
    fitted = {"epoch": [1.0], "loss": [1.0], "val_loss": [2.0]}
    root = ET.fromstring(overlay("t", "loss", {"base": BASE, "head": fitted}))
    assert [circle.attrib["style"] for circle in root.iter("circle")] == [
        "fill:var(--series-1)",
        "fill:none;stroke:var(--series-1);stroke-width:2",
    ]


def test_sides_of_an_overlay_share_their_axes():
    # epochs 1..3 and losses 1..3: the head's second and last epoch lies in the middle of the axis, its loss at the foot
    root = ET.fromstring(overlay("t", "loss", {"base": BASE, "head": HEAD}))
    points = list(root.iter("polyline"))[2].attrib["points"].split()
    assert points[-1] == f"{(LEFT + WIDTH - RIGHT) / 2:.1f},{HEIGHT - BOTTOM:.1f}"


def test_an_overlay_without_a_second_epoch_is_nothing():
    dots = {"epoch": [1.0], "loss": [1.0], "val_loss": [2.0]}
    assert overlay("t", "loss", {"base": dots, "head": dots}) == ""
    assert overlay("t", "top5", {"base": BASE, "head": HEAD}) == ""
    assert "<circle" in overlay("t", "loss", {"base": BASE, "head": dots})


def test_a_chart_that_stands_alone_brings_its_colours_and_is_well_formed():
    svg = standing_alone(line_chart("<a>", {f"s{index}": [(1, 1.0), (2, index)] for index in range(6)}), width=210)
    root = ET.fromstring(svg)
    assert (root.attrib["width"], root.attrib["height"]) == ("210", "115")
    assert all(f"--series-{index}:#" in svg for index in range(6))


def test_a_legend_that_would_be_cut_goes_on_in_a_row_below():
    points = [(1, 0.0), (2, 1.0)]
    root = ET.fromstring(line_chart("t", {"classification": points, "short": points, "a rather long name": points}))
    keys = [line.attrib for line in root.iter("line") if line.attrib["class"] == "key"]
    assert [key["y1"] for key in keys] == ["14", "14", "14"]
    root = ET.fromstring(line_chart("t", {f"{name} of the loss": points for name in ("class", "box", "mask", "mean")}))
    keys = [line.attrib for line in root.iter("line") if line.attrib["class"] == "key"]
    assert [key["y1"] for key in keys] == ["14", "14", "30", "30"]
    texts = [text.attrib for text in root.iter("text") if text.text and text.text.endswith("of the loss")]
    assert [text["y"] for text in texts] == ["14", "14", "30", "30"]
    # the plot begins as much lower
    assert all(f"{WIDTH - RIGHT:.1f},{TOP + 16:.1f}" in line.attrib["points"] for line in root.iter("polyline"))
