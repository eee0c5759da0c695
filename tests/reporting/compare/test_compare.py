"""Two commits compared: what changed, what that did, and in which words."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ParamsError, PipelineError
from pipeline.params import Gate
from pipeline.reporting import history
from pipeline.reporting.compare import (
    Change,
    Comparison,
    RunComparison,
    command,
    compare,
    compare_runs,
    gates,
    markdown,
    page,
    words,
)
from pipeline.reporting.compare.revisions import WORKSPACE, resolve
from tests.reporting.compare.repository import Repository, scores


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comparison]:
    """Five runs: mended, broken, unchanged, of equal quality, judged by another rule; and one more, one less."""
    with contextlib.chdir(tmp_path_factory.mktemp("planted")):
        repository = Repository(Path.cwd())
        base = scores(1, 0.7)
        for name in ("mended", "broken", "same", "equal", "other_rule", "gone"):
            repository.run(name, base, lr=0.001)
        repository.commit("base")
        repository.git("tag", "base")
        repository.run("mended", scores(1, 0.7, mended=20), lr=0.002, code="2")
        repository.run("equal", scores(2, 0.7), lr=0.003)
        repository.run("other_rule", base, rule="another", lr=0.001)
        repository.run("new", base, lr=0.001)
        repository.run("broken", scores(1, 0.5), lr=0.001, data="2")
        del repository.params["runs"]["gone"], repository.stages["train@gone"]
        repository.commit("head")
        yield compare(resolve("base"), resolve("HEAD"), num_resamples=200)


def test_every_run_gets_the_verdict_that_was_planted(planted: Comparison) -> None:
    assert {run.title: run.verdict for run in planted.runs} == {
        "mended": "better",
        "broken": "worse",
        "same": "identical",
        "equal": "no evidence",
        "other_rule": "not comparable",
        "gone": "gone",
        "new": "new",
    }


def test_what_changed_is_only_what_the_run_reads(planted: Comparison) -> None:
    runs = {run.title: run for run in planted.runs}
    assert runs["mended"].params == [Change("training.lr", 0.001, 0.002)]
    assert runs["mended"].code == ["pipeline/training/loop.py"]
    assert runs["other_rule"].unequal == [Change("rule", "one", "another")]
    assert runs["other_rule"].differences == []
    assert runs["same"].params == []
    # the dataset was written anew by `broken`, and stands before every run
    assert runs["same"].data == ["download@toy"]
    assert runs["same"].is_unchanged
    assert words.unchanged(planted) == ["Identical, though download@toy changed: same."]


def test_the_difference_is_that_of_the_figures_and_lies_in_its_interval(planted: Comparison) -> None:
    one = next(run for run in planted.runs if run.title == "mended").headline
    assert one is not None
    assert one.metric == "top1"
    assert one.difference == pytest.approx(20 / 300)
    assert one.low is not None
    assert one.high is not None
    assert 0 < one.low < one.difference < one.high


def test_a_change_of_shared_training_reaches_runs_that_do_not_say_otherwise(repository: Repository) -> None:
    repository.run("own", scores(1, 0.7), lr=0.5)
    repository.run("shared", scores(1, 0.7))
    repository.commit("base")
    repository.params["defaults"]["training"]["lr"] = 0.01
    repository.commit("head")
    found = {run.title: run.params for run in compare(resolve("HEAD~1"), resolve("HEAD")).runs}
    assert found == {"own": [], "shared": [Change("training.lr", 0.001, 0.01)]}


def test_shared_training_is_no_matter_to_what_is_fitted_and_merges_section_by_section(repository: Repository) -> None:
    repository.params["defaults"]["training"]["online"] = {"flip": 0.5, "crop": 0.1}
    for name in ("fitted", "partly", "wholly"):
        repository.run(name, scores(1, 0.7))
    runs = repository.params["runs"]
    runs["fitted"] |= {"model": "regression/ridge", "training": {}}
    runs["partly"]["training"] = {"online": {"flip": 0.0}}
    runs["wholly"]["training"] = {"lr": 0.5, "online": {"flip": 0.0, "crop": 0.0}}
    repository.commit("base")
    repository.params["defaults"]["training"] = {"lr": 0.001, "online": {"flip": 0.2, "crop": 0.3}}
    repository.commit("head")
    found = {name: _compared(name).params for name in runs}
    assert found == {"fitted": [], "partly": [Change("training.online.crop", 0.1, 0.3)], "wholly": []}


def test_of_a_checkpoint_only_the_training_counts_with_what_is_shared(repository: Repository) -> None:
    for name in ("parent", "child"):
        repository.run(name, scores(1, 0.7))
    runs = repository.params["runs"]
    runs["child"] |= {"inputs": "checkpoints/parent", "training": {"lr": 0.5}}
    for verb, code in (("predict", "pipeline/stages/predict.py"), ("evaluate", "pipeline/stages/evaluate.py")):
        outs = [{"path": f"data/{verb}", "md5": "1"}]
        repository.stages[f"{verb}@parent"] = {"deps": [{"path": code, "md5": "1"}], "outs": outs}
    repository.commit("base")
    runs["parent"]["evaluation"] = {"top_k": 3}
    runs["parent"]["prediction"] = {"batch_size": 7}
    for verb in ("predict", "evaluate"):
        stage = repository.stages[f"{verb}@parent"]
        stage["deps"][0]["md5"] = stage["outs"][0]["md5"] = "2"
    repository.commit("head")
    child = _compared("child")
    assert (child.params, child.code, child.data) == ([], [], [])
    repository.params["defaults"]["training"]["lr"] = 0.01
    repository.stages["train@parent"]["deps"][0]["md5"] = "2"
    repository.commit("another head")
    child = _compared("child")
    assert child.params == [Change("runs.parent.training.lr", 0.001, 0.01)]
    assert child.code == ["pipeline/training/loop.py"]


def _compared(name: str) -> RunComparison:
    return next(run for run in compare(resolve("HEAD~1"), resolve("HEAD"), num_resamples=200).runs if run.title == name)


def test_two_runs_of_one_commit(repository: Repository) -> None:
    repository.run("one", scores(1, 0.7), lr=0.1)
    repository.run("two", scores(1, 0.7, mended=30), lr=0.2)
    repository.commit("both")
    found = compare_runs(resolve("HEAD"), "one", "two", num_resamples=200).runs
    assert [(run.title, run.verdict) for run in found] == [("one → two", "better")]
    with pytest.raises(ParamsError, match="HEAD has no run or generator 'onee'; did you mean 'one'"):
        compare_runs(resolve("HEAD"), "onee", "two")


def test_the_workspace_is_a_side(repository: Repository) -> None:
    repository.run("one", scores(1, 0.7), lr=0.1)
    repository.commit("base")
    repository.run("one", scores(1, 0.4), lr=0.1)
    found = compare(resolve("HEAD"), resolve(WORKSPACE), num_resamples=200).runs
    assert [run.verdict for run in found] == ["worse"]


def test_a_revision_that_is_not_there_is_told_with_the_nearest(repository: Repository) -> None:
    repository.run("one", scores(1, 0.7))
    repository.commit("base")
    with pytest.raises(ParamsError, match="no revision 'mein'; did you mean 'main'"):
        resolve("mein")
    with pytest.raises(ParamsError, match="no revision '--help'"):
        resolve("--help")


def test_a_dvc_experiment_is_found_by_its_name(repository: Repository) -> None:
    repository.run("one", scores(1, 0.7))
    commit = repository.commit("base")
    repository.git("update-ref", f"refs/exps/{commit[:2]}/{commit[2:]}/puffy-daks", commit)
    assert resolve("puffy-daks").commit == commit


@pytest.mark.parametrize(
    ("gate", "run", "passed", "reason"),
    [
        (Gate(floor=0.6), "mended", True, "0.7"),
        (Gate(floor=0.99), "mended", False, "must be at least 0.990"),
        (Gate(min_delta=0.0), "mended", True, "a gain of at least +0 is asked"),
        (Gate(min_delta=-0.005), "broken", False, "a gain of at least -0.005 is asked"),
        (Gate(min_delta=-0.005, level=0.95), "broken", False, "all of it below a gain of -0.005"),
        (Gate(min_delta=-0.005, level=0.95), "equal", True, "not below a gain of -0.005"),
        (Gate(min_delta=0.0), "other_rule", False, "not comparable: the protocols differ in rule"),
        (Gate(min_delta=0.0), "gone", False, "the head has no report of this run"),
        (Gate(min_delta=0.0), "new", True, "a new run"),
        (Gate(min_delta=0.0), "nothing", False, "no run of this name has this metric"),
    ],
)
def test_gates(planted: Comparison, gate: Gate, run: str, passed: bool, reason: str) -> None:
    (outcome,) = gates.judge(planted, {run: {"top1": gate}})
    assert outcome.passed is passed
    assert reason in outcome.reason


def test_a_gate_takes_the_noise_of_seeds_into_account(repository: Repository) -> None:
    """Means .80 and .70 over three seeds each. Deviations of .01 leave the fall certain, of .1 they do not."""
    for side, mean, name in (("base", 0.8, "base"), ("head", 0.7, "head")):
        for run, std in (("calm", 0.01), ("noisy", 0.1)):
            values = [mean - std, mean, mean + std]  # their mean is `mean`, their sample deviation `std`
            repository.run(run, scores(1, 0.8 if side == "base" else 0.79), seeds=[["top1", mean, std, *values]])
        repository.commit(name)
    found = compare(resolve("HEAD~1"), resolve("HEAD"), num_resamples=200)
    calm, noisy = gates.judge(found, {"*": {"top1": Gate(min_delta=-0.005, level=0.95)}})
    assert (calm.passed, noisy.passed) == (False, True)
    assert "-0.1000 in the mean of 3 and 3 seeds" in calm.reason
    assert "0.800 ± 0.010 (3)" in markdown.render(found)


def test_a_gate_holds_an_ensemble_by_its_own_answer_and_not_by_those_of_its_members(repository: Repository) -> None:
    """The members score as the base does; together they mend 30 of 300 images."""
    place = repository.folder / "reports/runs/one/metrics.json"
    for name, mended, rules in (("base", 0, []), ("head", 30, [["ensemble", "mean of the answers of 3 seeds"]])):
        repository.run("one", scores(1, 0.7, mended=mended), seeds=[["top1", 0.7, 0.01, 0.69, 0.7, 0.71]])
        content = json.loads(place.read_text())
        place.write_text(json.dumps({**content, "protocol": [["rule", "one"], *rules]}))
        repository.commit(name)
    there, back = (
        compare(resolve(a), resolve(b), num_resamples=200) for a, b in (("HEAD~1", "HEAD"), ("HEAD", "HEAD~1"))
    )
    (gained,), (lost,) = (gates.judge(found, {"one": {"top1": Gate(min_delta=0.05)}}) for found in (there, back))
    assert (gained.passed, gained.reason) == (True, "+0.1000, a gain of at least +0.05 is asked")
    assert (lost.passed, lost.reason) == (False, "-0.1000, a gain of at least +0.05 is asked")


def test_a_gate_on_a_metric_whose_own_rule_differs_cannot_be_held(repository: Repository) -> None:
    place = repository.folder / "reports/runs/one/metrics.json"
    for bins in (15, 10):
        repository.run("one", scores(1, 0.7))
        content = json.loads(place.read_text())
        place.write_text(json.dumps({**content, "protocol": [["rule", "one"], ["ece", f"{bins} bins"]]}))
        repository.commit(str(bins))
    found = compare(resolve("HEAD~1"), resolve("HEAD"), num_resamples=200)
    ece, top1 = gates.judge(found, {"one": {"ece": Gate(min_delta=0.0), "top1": Gate(min_delta=0.0)}})
    assert (ece.passed, ece.reason) == (False, "not comparable: its rule or the code behind it differs")
    assert top1.passed
    assert "n/a" in words.metric_row("classification", found.runs[0].differences[-1]), "nor does the table subtract"


def test_classes_that_differ_are_told_and_no_figure_is_subtracted(repository: Repository) -> None:
    place = repository.folder / "reports/runs/one/metrics.json"
    for names, found in ((["cat", "dog"], scores(1, 0.6)), (["cat", "hound"], scores(1, 0.6, mended=40))):
        repository.run("one", found)
        rows = [{"class": name} for name in names]
        place.write_text(json.dumps({**json.loads(place.read_text()), "per_class": rows}))
        repository.commit(names[1])
    (run,) = compare(resolve("HEAD~1"), resolve("HEAD"), num_resamples=200).runs
    assert (run.verdict, run.unequal, run.differences) == ("not comparable", [Change("classes", "dog", "hound")], [])


def test_a_gate_knows_which_way_is_better(planted: Comparison) -> None:
    """log_loss falls where the run was mended: a gain."""
    found = gates.judge(planted, {"mended": {"log_loss": Gate(min_delta=0.0)}, "broken": {"log_loss": Gate(floor=0.1)}})
    assert [outcome.passed for outcome in found] == [True, False]
    assert "must be at most 0.100" in found[1].reason


def test_gates_by_pattern_reach_every_run(planted: Comparison) -> None:
    found = gates.judge(planted, {"*": {"top1": Gate(floor=0.0)}})
    assert {outcome.run for outcome in found} == {run.title for run in planted.runs}


def test_the_command_writes_all_forms_and_fails_at_a_gate(
    tmp_path: Path, planted: Comparison, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"broken": {"top1": Gate(min_delta=-0.005)}}
    monkeypatch.setattr(command.params, "load", lambda: type("P", (), {"compare": type("C", (), {"gates": limits})}))
    files = {name: tmp_path / f"out.{name}" for name in ("md", "html", "json")}
    code = command.run("base", "HEAD", num_resamples=200, md=files["md"], html=files["html"], as_json=files["json"])
    assert code == 3
    shown = capsys.readouterr().out
    assert "gate FAIL: broken top1" in shown
    assert "▲ better" in shown
    content = json.loads(files["json"].read_text())
    assert {run["run"]: run["verdict"] for run in content["runs"]}["mended"] == "better"
    assert content["gates"][0]["passed"] is False
    comment = files["md"].read_text()
    assert comment.startswith(markdown.MARKER)
    assert "**1 of 1 gates failed**" in comment
    assert "http:" not in files["html"].read_text()


def test_two_runs_leave_no_place_for_a_head_or_a_gate(
    planted: Comparison, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"*": {"top1": Gate(floor=1.0)}}
    monkeypatch.setattr(command.params, "load", lambda: type("P", (), {"compare": type("C", (), {"gates": limits})}))
    with pytest.raises(ParamsError, match=r"^HEAD 'base' and --runs: both runs are of BASE \('HEAD'\); fix: leave"):
        command.run("HEAD", "base", runs=("mended", "broken"))
    assert command.run("HEAD", runs=("mended", "broken"), num_resamples=100) == 0
    assert "no gate was judged" in capsys.readouterr().err
    limits.clear()
    assert command.run("HEAD", runs=("mended", "broken"), num_resamples=100) == 0
    assert capsys.readouterr().err == ""


def test_equal_commits_give_equal_bytes(planted: Comparison) -> None:
    again = compare(resolve("base"), resolve("HEAD"), num_resamples=200)
    assert markdown.render(again) == markdown.render(planted)
    assert page.render(again) == page.render(planted)


def test_names_stay_text_in_every_form(repository: Repository) -> None:
    name = "<script>alert(1)</script>|`x`\"'"
    repository.run("one", scores(1, 0.7), lr=0.1)
    repository.commit("base")
    repository.run("one", scores(1, 0.5), lr=0.2, optimizer=name)
    repository.git("checkout", "-qb", "a`b|c")
    repository.commit("head")
    found = compare(resolve("main"), resolve("a`b|c"), num_resamples=200)
    comment, html = markdown.render(found), page.render(found)
    assert "<script>" not in comment
    assert "a\\`b\\|c" in comment
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_a_comment_is_never_longer_than_github_takes(repository: Repository) -> None:
    for side, seed in (("base", 1), ("head", 2)):
        for index in range(40):
            repository.run(f"run_{index:02d}_{'x' * 80}", scores(seed, 0.7), lr=float(seed), note=side + "y" * 1500)
        repository.commit(side)
    comment = markdown.render(compare(resolve("HEAD~1"), resolve("HEAD"), num_resamples=100))
    assert len(comment) <= markdown.MAX_CHARACTERS
    assert "Details left out for length: run" in comment
    assert words.HEADLINES[0] in comment


def test_history_lists_the_commits_that_moved_a_metric(
    repository: Repository, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    repository.run("one", scores(1, 0.7))
    repository.commit("the first")
    repository.run("another", scores(1, 0.7))
    repository.commit("of another run")
    repository.run("one", scores(1, 0.7, mended=10))
    repository.commit("ten more | <b>")
    _, points = history.read("top1", "one", 100)
    first = float((scores(1, 0.7).argmax(1) == np.arange(300) % 4).mean())
    assert [point.value for point in points] == pytest.approx([first, first + 10 / 300])
    assert [point.subject for point in points] == ["the first", "ten more | <b>"]
    assert points[0].interval == pytest.approx((first - 0.05, first + 0.05))
    history.run("top1", "one", limit=100, out=tmp_path / "history.png")
    assert (tmp_path / "history.png").read_bytes().startswith(b"\x89PNG")
    assert "ten more | <b>" in capsys.readouterr().out
    with pytest.raises(ParamsError, match="one has no metric 'top11'; did you mean 'top1'"):
        history.read("top11", "one", 100)
    with pytest.raises(ParamsError, match=r"one has no metric 'protocol'; .*choices: .*top1"):
        history.read("protocol", "one", 100)


def test_lock_and_params_that_are_broken_are_told(repository: Repository) -> None:
    repository.run("one", scores(1, 0.7))
    repository.commit("base")
    (repository.folder / "params.yaml").write_text("a: [")
    repository.git("commit", "-qam", "broken")
    with pytest.raises(Exception, match=r"params.yaml of HEAD: not readable as YAML"):
        compare(resolve("HEAD~1"), resolve("HEAD"))


def test_training_curves_of_both_sides_lie_over_each_other(repository: Repository) -> None:
    header, row = "epoch,lr,loss,val_loss,val_top1", "{},0.1,{},{},0.5"
    for name in ("changed", "same"):
        repository.run(name, scores(1, 0.7), lr=0.1)
        place = repository.folder / "reports/runs" / name / "training.csv"
        place.write_text("\n".join([header, *(row.format(epoch, 3 / epoch, 4 / epoch) for epoch in (1, 2, 3))]))
    repository.commit("base")
    repository.run("changed", scores(1, 0.5), lr=0.2)
    repository.run("same", scores(1, 0.5), lr=0.2)
    place = repository.folder / "reports/runs/changed/training.csv"
    place.write_text("\n".join([header, *(row.format(epoch, 2 / epoch, 3 / epoch) for epoch in (1, 2))]))
    repository.commit("head")
    found = compare(resolve("HEAD~1"), resolve("HEAD"), num_resamples=20)
    by_run = {run.title: page.overlaid(run) for run in found.runs}
    assert [caption for caption, _ in by_run["changed"]] == ["Loss by epoch", "Top-1 by epoch"]
    assert ">epoch</text>" in by_run["changed"][0][1]
    assert by_run["same"] == []
    loss = by_run["changed"][0][1]
    assert loss.count("<polyline") == 4
    assert [len(points.split()) for points in re.findall(r'points="([^"]*)"', loss)] == [3, 3, 2, 2]
    html = page.render(found)
    assert html.count("Training curves") == 1
    assert loss in html
    repository.run("changed", scores(1, 0.5), lr=0.3)
    place.write_text("epoch,loss\n1,much\n")
    repository.commit("broken")
    with pytest.raises(PipelineError, match=r"changed/training\.csv of HEAD:2 loss: not a number \('much'\)"):
        page.render(compare(resolve("HEAD~1"), resolve("HEAD"), num_resamples=20))


def test_curves_of_what_is_fitted_count_its_steps_and_names_of_scores_stay(repository: Repository) -> None:
    for lr, losses in ((0.1, (3, 2)), (0.2, (3, 1))):
        repository.run("line", scores(1, 0.7), lr=lr)
        repository.params["runs"]["line"]["model"] = "regression/linear"
        rows = [f"{step},{loss},0.5,0.25" for step, loss in enumerate(losses)]
        place = repository.folder / "reports/runs/line/training.csv"
        place.write_text("\n".join(["epoch,loss,val_rmse,val_mae", *rows]))
        repository.commit(str(lr))
    (run,) = compare(resolve("HEAD~1"), resolve("HEAD"), num_resamples=20).runs
    curves = page.overlaid(run)
    assert [caption for caption, _ in curves] == ["Loss by step", "RMSE by step", "MAE by step"]
    assert all(">step</text>" in svg and 'of line by step"' in svg for _, svg in curves)
