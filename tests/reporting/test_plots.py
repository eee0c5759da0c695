import numpy as np
import pytest
from PIL import Image

from pipeline.metrics import classification
from pipeline.reporting import plots

NAMES = ["mammal", "$x_1$", "sea animal", "a name that is rather long"]
RNG = np.random.default_rng(0)
SCORES = RNG.dirichlet(np.ones(4), 60)
CALIBRATION = classification.calibration(confidence=SCORES.max(1), correct=SCORES.argmax(1) == RNG.integers(0, 4, 60))
CURVES = np.sort(RNG.random((4, 101)), 1)[:, ::-1]
CURVES[3] = np.nan
DRAWN = {
    "confusion": lambda path: plots.confusion_matrix(path, RNG_MATRIX, NAMES),
    "confusion of pixels": lambda path: plots.confusion_matrix(
        path, RNG_MATRIX * 999, NAMES[:4], columns=[*NAMES[:3], "-"]
    ),
    "confusion of many": lambda path: plots.confusion_matrix(
        path, np.eye(80, dtype=int), [f"class {i}" for i in range(80)]
    ),
    "reliability": lambda path: plots.reliability(path, CALIBRATION),
    "precision_recall": lambda path: plots.precision_recall(path, CURVES, NAMES, [0.5, 0.2, 0.9, None]),
    "bars": lambda path: plots.bars(path, [0.1, None, 1.0, 0.4], NAMES, label="IoU"),
    "error types": lambda path: plots.error_types(path, NAMES, [0.1, 0.0, None, 0.02], [12, 0, 3, None]),
    "reliability of detections": lambda path: plots.reliability(path, CALIBRATION, of="detections", confidence="s"),
    "agreement": lambda path: plots.agreement(path, SCORES[:, 0], SCORES[:, 1]),
    "residuals": lambda path: plots.residuals(path, SCORES[:, 0], SCORES[:, 1]),
    "agreement of equal numbers": lambda path: plots.agreement(path, np.full(3, 2.0), np.full(3, 2.0)),
    "residuals of nothing": lambda path: plots.residuals(path, np.zeros(0), np.zeros(0)),
    "distances": lambda path: plots.distances(
        path, [("FID", [("samples", 3.0), ("noise", None)]), ("KID", [("s", -0.1)])]
    ),
}
RNG_MATRIX = np.array([[9, 1, 0, 0], [2, 5, 1, 0], [0, 0, 0, 0], [0, 3, 0, 700]])


@pytest.mark.parametrize("name", DRAWN)
def test_a_plot_is_small_without_metadata_and_the_same_each_time(tmp_path, name):
    for file in ("a.png", "b.png"):
        DRAWN[name](tmp_path / file)
    data = (tmp_path / "a.png").read_bytes()
    assert data == (tmp_path / "b.png").read_bytes()
    assert len(data) < 200_000
    with Image.open(tmp_path / "a.png") as image:
        assert set(image.info) <= {"dpi"}
        assert np.asarray(image.convert("RGB"))[0, 0].tolist() == [255, 255, 255]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_the_style_of_the_user_changes_nothing(tmp_path):
    import matplotlib

    DRAWN["bars"](tmp_path / "a.png")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        DRAWN["bars"](tmp_path / "b.png")
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_longer_bar_shows_a_larger_value(tmp_path):
    def blue_pixels(value):
        plots.bars(tmp_path / "bars.png", [value], ["x"], label="IoU")
        with Image.open(tmp_path / "bars.png") as image:
            pixels = np.asarray(image.convert("RGB"))
        return int((pixels == [0x2F, 0x6F, 0xB0]).all(-1).sum())

    assert blue_pixels(0.8) == pytest.approx(2 * blue_pixels(0.4), rel=0.02)


ODD = ["a $x_{$", "$b$", "c"]
NAMED = {
    "confusion": lambda path, names: plots.confusion_matrix(path, np.eye(3, dtype=int), names),
    "columns": lambda path, names: plots.confusion_matrix(path, np.eye(3, dtype=int), list("abc"), columns=names),
    "precision_recall": lambda path, names: plots.precision_recall(path, CURVES[:3], names, [0.5, 0.2, 0.9]),
    "bars": lambda path, names: plots.bars(path, [0.1, None, 1.0], names, label="IoU"),
    "shaded_table": lambda path, names: plots.shaded_table(path, np.eye(3), names, names, label="top1"),
}


@pytest.mark.parametrize("name", NAMED)
def test_a_name_is_drawn_as_it_is_and_never_read_as_a_formula(tmp_path, monkeypatch, name):
    import matplotlib

    NAMED[name](tmp_path / "a.png", ODD)
    monkeypatch.setitem(plots.STYLE, "text.parse_math", False)
    monkeypatch.setattr(plots, "plain", list)
    assert matplotlib.rcParams["text.parse_math"]
    NAMED[name](tmp_path / "b.png", ODD)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_undefined_values_are_drawn_as_such(tmp_path):
    plots.precision_recall(tmp_path / "pr.png", np.full((2, 101), np.nan), ["a", "b"], [None, None])
    plots.bars(tmp_path / "bars.png", [None, None], ["a", "b"], label="AP")
    plots.confusion_matrix(tmp_path / "confusion.png", np.zeros((2, 2), int), ["a", "b"])
    empty = classification.calibration(confidence=np.zeros(0), correct=np.zeros(0, bool))
    plots.reliability(tmp_path / "reliability.png", empty)
    assert len(list(tmp_path.iterdir())) == 4
