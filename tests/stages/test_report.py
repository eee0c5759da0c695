import json
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.params import Params
from pipeline.stages import report


def test_both_files_appear_and_a_second_run_gives_the_same_bytes(job: Params, capsys):
    report.run(job)
    first = [Path("reports/index.html").read_bytes(), Path("reports/summary.md").read_bytes()]
    report.run(job)
    assert [Path("reports/index.html").read_bytes(), Path("reports/summary.md").read_bytes()] == first
    assert capsys.readouterr().err == ""


def test_a_folder_that_no_entry_owns_is_told_and_left_out(job: Params, capsys):
    Path("reports/runs/of_yesterday").mkdir()
    Path("reports/visualise/old_map").mkdir()
    report.run(job)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1].strip() for line in lines] == ["reports/runs/of_yesterday", "reports/visualise/old_map"]
    assert all(line.startswith("warning: ") and "; fix: " in line for line in lines)
    assert "of_yesterday" not in Path("reports/index.html").read_text()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_text('{"top1": '), "not readable as JSON"),
        (lambda path: path.write_text("[1]"), "holds a list"),
        (lambda path: path.write_bytes(b"\xff\xfe{}"), "not readable as JSON"),
        (lambda path: path.write_text(json.dumps({"per_class": [1]})), "per_class must be"),
        (lambda path: path.write_text(json.dumps({"protocol": 3})), "protocol one of pairs"),
    ],
)
def test_a_spoiled_metrics_file_is_one_line_and_the_old_report_stays(job: Params, spoil, told):
    report.run(job)
    before = Path("reports/index.html").read_bytes()
    spoil(Path("reports/runs/unet_scenes/metrics.json"))
    with pytest.raises(PipelineError, match=told) as caught:
        report.run(job)
    message = str(caught.value)
    assert message.startswith("reports/runs/unet_scenes/metrics.json: ")
    assert "; fix: " in message
    assert "\n" not in message
    assert Path("reports/index.html").read_bytes() == before


def test_a_spoiled_curve_names_its_line(job: Params):
    path = Path("reports/runs/unet_scenes/training.csv")
    path.write_text("epoch,loss\n1,0.5\n2,half\n")
    with pytest.raises(PipelineError, match=r"training\.csv:3 loss: not a number \('half'\)"):
        report.run(job)


def test_a_picture_that_is_none_is_named(job: Params):
    Path("reports/runs/unet_scenes/pictures/zzz.png").write_bytes(b"<html>")
    with pytest.raises(PipelineError, match=r"zzz\.png: not a PNG"):
        report.run(job)


def test_a_job_of_nothing_still_has_a_page(job: Params):
    empty = job.model_copy(
        update={name: {} for name in ("datasets", "augmentations", "runs", "generators", "visualisations")}
    )
    for folder in ("runs", "generators", "data", "visualise"):
        Path("reports", folder).rename(Path("reports", f"old_{folder}"))
    report.run(empty)
    assert "<h1>" in Path("reports/index.html").read_text()
    assert Path("reports/summary.md").read_text().startswith("# Summary\n")
