import csv
import io

import numpy as np
import pytest

from pipeline.data import charts
from pipeline.data.datasets import wine_quality
from pipeline.data.store import Store
from pipeline.errors import ParamsError, PipelineError
from pipeline.stages import download
from pipeline.structures import SPLITS
from tests.data.datasets.originals import serve

HEADER = [*wine_quality.PROPERTIES, "quality"]


def table(num, seed, repeated=0):
    """[num, 12] rows of properties and a quality; the last `repeated` repeat the first."""
    rng = np.random.default_rng(seed)
    rows = np.column_stack([rng.normal(5, 2, (num, 11)).round(3), rng.integers(3, 7, num)])
    rows[num - repeated :] = rows[0]
    return rows


def written(rows, header=HEADER):
    """As UCI writes it: semicolons, names quoted."""
    buffer = io.StringIO()
    buffer.write(";".join(f'"{name}"' for name in header) + "\n")
    csv.writer(buffer, delimiter=";", lineterminator="\n").writerows([*row[:-1], int(row[-1])] for row in rows.tolist())
    return buffer.getvalue().encode()


RED, WHITE = table(30, 0, repeated=4), table(70, 1)


@pytest.fixture
def served(cache, server, monkeypatch):
    serve(server, monkeypatch, wine_quality, {"red": written(RED), "white": written(WHITE)})


def test_numbers_and_qualities_are_the_originals(tmp_path, served):
    wine_quality.prepare(tmp_path / "wine", seed=0)
    store = Store(tmp_path / "wine")
    assert store.info.tasks == ["regression"]
    assert store.info.feature_names == [*HEADER[:-1], "red"]
    assert sum(store.info.counts.values()) == 100
    assert abs(store.info.counts["train"] - 70) <= 4  # four equal rows move together
    seen = []
    for name in SPLITS:
        split = store.split(name)
        for row in (split.row(index) for index in range(len(split))):
            colour, number = row["image_id"].split("_")
            wanted = (RED if colour == "red" else WHITE)[int(number) - 1]
            assert row["features"] == pytest.approx([*wanted[:-1], float(colour == "red")], rel=1e-6)
            assert row["target"] == wanted[-1]
            seen.append(row["image_id"])
    assert len(set(seen)) == 100


def test_equal_rows_stay_in_one_split(tmp_path, served):
    for seed in range(5):
        wine_quality.prepare(tmp_path / "wine", seed=seed, colour="red")
        store = Store(tmp_path / "wine")
        found = [name for name in SPLITS for group in store.split(name).column("group") if group == "red_0001"]
        assert len(found) == 5  # the first row and its four repetitions
        assert len(set(found)) == 1


def test_one_colour_has_eleven_properties(tmp_path, served, server):
    wine_quality.prepare(tmp_path / "wine", seed=0, colour="white")
    store = Store(tmp_path / "wine")
    assert store.info.feature_names == HEADER[:-1]
    assert sum(store.info.counts.values()) == 70
    assert len(server.requests) == 1


def test_columns_are_found_by_name(tmp_path, cache, server, monkeypatch):
    order = [11, *range(10, -1, -1)]
    content = ";".join(f'"{HEADER[i]}"' for i in order) + "\n"
    content += "".join(";".join(str(row[i]) for i in order) + "\n" for row in RED)
    serve(server, monkeypatch, wine_quality, {"red": content.encode()})
    wine_quality.prepare(tmp_path / "wine", seed=0, colour="red")
    split = Store(tmp_path / "wine").split("train")
    for index, image_id in enumerate(split.column("image_id")):
        wanted = RED[int(image_id.removeprefix("red_")) - 1]
        assert split.row(index)["features"] == pytest.approx(wanted[:-1], rel=1e-6)
        assert split.row(index)["target"] == wanted[-1]


def test_a_chart_has_a_bar_for_each_property():
    low, high = np.array([0.0, 10.0, 5.0, 2.0]), np.array([1.0, 20.0, 5.0, 4.0])
    image = charts.chart(np.array([0.5, 20.0, 5.0, 9.0]), low, high)[..., 0]
    assert image.shape == (48, 16)
    # half of 48, all of it, none where all rows are equal, and all where a value is above the range
    assert [int((image[:, 4 * i + 1] == 64).sum()) for i in range(4)] == [24, 48, 0, 48]
    assert (image[24:, :4] == 64).all()
    assert (image[:24, :4] == 255).all()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (written(RED, [*HEADER[:-1], "grade"]), r"winequality-red\.csv:1: no column 'quality'"),
        (written(RED) + b"7.4;x;0;1.9;0.076;11;34;0.9978;3.51;0.56;9.4;5\n", r"red\.csv:32: not a row of numbers"),
        (written(RED) + b"7.4;0.7\n", r"red\.csv:32: not a row of numbers"),
        (written(RED) + b"7.4;nan;0;1.9;0.076;11;34;0.9978;3.51;0.56;9.4;5\n", r"red\.csv:32: not a row"),
        (written(RED[:0]), r"red\.csv: no rows"),
    ],
)
def test_what_is_no_table_of_wines_is_refused(tmp_path, cache, server, monkeypatch, content, told):
    serve(server, monkeypatch, wine_quality, {"red": content})
    with pytest.raises(PipelineError, match=told):
        wine_quality.prepare(tmp_path / "wine", seed=0, colour="red")
    assert not (tmp_path / "wine").exists()


def test_shares_that_leave_no_test_row_are_refused(tmp_path):
    with pytest.raises(ParamsError, match=r"datasets\.wine\.options: train and val leave no row for test"):
        wine_quality.prepare(tmp_path / "wine", seed=0, train=0.8, val=0.2)


def test_its_statistics_and_pictures_are_drawn(tmp_path, served):
    wine_quality.prepare(tmp_path / "wine", seed=0)
    download.write_report(tmp_path / "wine", tmp_path / "report")
    assert (tmp_path / "report/pictures/regression.png").stat().st_size > 1000
