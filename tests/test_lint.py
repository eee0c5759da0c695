"""`pipeline lint` on the real graph over the toy params, one fault put in at a time."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.lint import checks, command, imports, leftovers, reads, writes
from pipeline.lint import graph as graphs
from pipeline.params import Defaults, Generator, Params, Run, load

PROJECT = Path(__file__).parent.parent

Find = Callable[..., list[str]]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lint")
    shutil.copy(PROJECT / "dvc.yaml", folder)
    shutil.copy(PROJECT / "tests/toy_params.yaml", folder / "params.yaml")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=folder, check=True)
    return folder


@pytest.fixture
def find(project: Path, tmp_path: Path) -> Iterator[Find]:
    """A function that gives the faults of a check which an edit of a file brings about."""
    folder = tmp_path / "project"
    shutil.copytree(project, folder)

    def faults(check: Callable[[graphs.Graph], Iterator[str]], file: str, old: str, new: str) -> list[str]:
        before = set(check(graphs.read()))
        path = folder / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        return sorted(set(check(graphs.read())) - before)

    with chdir(folder):
        yield faults


def test_code_that_a_stage_runs_and_does_not_depend_on(find: Find) -> None:
    found = find(checks.imports, "dvc.yaml", "        - pipeline/stages/sample.py\n", "")
    assert found == ["dvc.yaml sample.deps: its code runs pipeline/stages/sample.py; fix: add it"]


def test_code_that_a_stage_would_run_were_there_any_in_its_group(find: Find) -> None:
    found = find(checks.imports, "dvc.yaml", "        - pipeline/training/trial.py\n", "")
    assert found == ["dvc.yaml search.deps: its code runs pipeline/training/trial.py; fix: add it"]


def test_a_model_that_is_found_by_name_has_to_be_a_dependency(find: Find) -> None:
    found = find(checks.imports, "dvc.yaml", "        - pipeline/models/${item.model}.py\n", "")
    assert "dvc.yaml train.deps: its code runs pipeline/models/heads/linear.py; fix: add it" in found
    assert all(line.startswith("dvc.yaml train.deps: its code runs pipeline/models/") for line in found)


def test_a_dependency_on_code_that_never_runs(find: Find) -> None:
    old = "        - pipeline/stages/sample.py\n"
    found = find(
        checks.unused_code, "dvc.yaml", old, f"{old}        - pipeline/tracking.py\n        - pipeline/none.py\n"
    )
    assert found == [
        "dvc.yaml sample.deps: its code never runs pipeline/tracking.py; fix: remove it",
        "dvc.yaml sample.deps: no pipeline/none.py; fix: remove or mend it",
    ]


def test_params_that_a_stage_reads_and_does_not_declare(find: Find) -> None:
    found = find(checks.params, "dvc.yaml", "        - generators.${key}.sampling\n", "")
    assert sorted(line.partition(" reads ")[2] for line in found) == [
        f"generators.${{key}}.sampling.{key}; fix: add it" for key in ("batch_size", "num_samples", "options")
    ]
    assert all(line.startswith("dvc.yaml sample.params: pipeline/stages/sample.py:") for line in found)


def test_params_that_a_stage_declares_and_does_not_read(find: Find) -> None:
    old = "        - generators.${key}.sampling\n"
    found = find(checks.params, "dvc.yaml", old, f"{old}        - generators.${{key}}.evaluation\n")
    assert found == [
        "dvc.yaml sample.params: none of its code reads generators.${key}.evaluation; fix: remove it",
    ]


def test_an_output_that_is_written_and_not_declared(find: Find) -> None:
    found = find(
        checks.outs,
        "dvc.yaml",
        "        - reports/visualise/${key}:\n            cache: false\n",
        "        - x/${key}\n",
    )
    assert found == [
        "dvc.yaml visualise.outs: pipeline/stages/visualise.py never names x/*; fix: remove it",
        "dvc.yaml visualise.outs: pipeline/stages/visualise.py writes reports/visualise/*; fix: add it",
    ]


def test_a_dot_in_a_key(find: Find) -> None:
    found = find(checks.names, "params.yaml", "tracking:\n", "tracking:\n  a.b: 1\n")
    assert found == ["params.yaml tracking > a.b: a dot in a key, which DVC takes for two keys; fix: rename it"]


def test_stages_of_one_name() -> None:
    groups = {
        "a": {"matrix": {"x": ["b-c"], "y": ["d"]}},
        "b": {"foreach": "${runs}", "do": {}},
        "one": {"cmd": "x"},
        "c": {"matrix": {"x": ["b"], "y": ["c-d", "e"]}},
    }
    names = list(graphs.expanded_names(groups, {"runs": {"unet": {}, "fcos": {}}}))
    assert names == ["a@b-c-d", "b@unet", "b@fcos", "one", "c@b-c-d", "c@b-e"]
    double = {"a": {"matrix": {"x": ["b", "b-c"], "y": ["c-d", "d"]}}}
    assert sorted(graphs.expanded_names(double, {})) == ["a@b-c-c-d", "a@b-c-d", "a@b-c-d", "a@b-d"]


def test_paths_outside_the_project(find: Find) -> None:
    found = find(checks.outside, "dvc.yaml", "        - pipeline/stages/sample.py\n", "        - /etc/hostname\n")
    assert [line.partition(": ")[2] for line in found] == [
        "outside the project (/etc/hostname); fix: copy or link it in"
    ]


def test_what_removed_runs_left_behind_is_told_and_pruned(
    find: Find, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "CHECKS", ())
    run = next(iter(load().runs))
    for name in (run, "gone"):
        (Path("reports/runs") / name).mkdir(parents=True)
        (Path("reports/runs") / name / "metrics.json").write_text("{}")
    kept = f"schema: '2.0'\nstages:\n  train@{run}:\n    cmd: x\n"
    Path("dvc.lock").write_text(f"{kept}  train@gone:\n    cmd: y\n")
    assert command.run(prune=False) == 1
    said = capsys.readouterr().out
    assert "reports/runs/gone: no entry of params.yaml owns it; fix: python -m pipeline lint --prune" in said
    assert "dvc.lock train@gone: no such stage in dvc.yaml" in said
    assert Path("reports/runs/gone").is_dir()
    assert command.run(prune=True) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[:2] == ["removed reports/runs/gone", "removed train@gone from dvc.lock"]
    assert not Path("reports/runs/gone").exists()
    assert (Path("reports/runs") / run / "metrics.json").is_file()
    assert Path("dvc.lock").read_text() == kept
    assert leftovers.find(load(), graphs.read().stages) == leftovers.Leftovers([], [])


SOURCE = """
from pipeline import paths
from pipeline.params import Defaults, Generator, Params, Run

def run(params: Params, name: str) -> None:
    entry = params.learner(name)
    training = entry.training
    print(training.epochs, [run.dataset for run in params.runs.values()])
    fit(entry.evaluation, params.defaults)
    report = paths.generator_report(name) if name else paths.run_report(name)
    write(report / "curve.csv")
    with paths.written_whole(paths.samples(name)) as folder:
        paths.write_json(folder / "info.json", params.features[name].image_size)
    print(paths.raw(name))

def write(place):
    with paths.written_whole(place) as temporary:
        temporary.write_text("x")

def by_type(entry: Run | None, defaults: Defaults) -> str:
    return entry.task if entry and defaults.seed else ""
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for each in (imports, writes):
        monkeypatch.setattr(each, "PROJECT", tmp_path)
    (tmp_path / "stage.py").write_text(SOURCE)
    cached = (imports.tree, writes._functions, writes._reached, writes._imported)
    for function in cached:
        function.cache_clear()
    yield "stage.py"
    for function in cached:
        function.cache_clear()


def test_reads_follow_assignments_loops_and_annotations(module: str) -> None:
    found = {(read.section, read.keys) for read in reads.reads(module)}
    from pipeline.params import Features

    assert found == {
        (Run, ("training", "epochs")),  # not all of training, which only got a name
        (Generator, ("training", "epochs")),
        (Run, ("dataset",)),
        (Run, ("evaluation",)),
        (Generator, ("evaluation",)),
        (Params, ("defaults",)),
        (Features, ("image_size",)),
        (Run, ("model",)),  # which the task is made of
    }
    assert Defaults not in {section for section, _ in found}  # read by whoever handed it on


def test_writes_follow_names_conditions_and_calls(module: str) -> None:
    assert writes.writes(module) == {
        "reports/generators/*/curve.csv",
        "reports/runs/*/curve.csv",
        "data/samples/*",
    }
    assert "data/raw/*" in writes.mentions(module)


def test_the_schema_names_the_class_of_each_mapping() -> None:
    classes = reads.entry_classes()
    assert classes["runs"] is Run
    assert classes["generators"] is Generator
    assert "defaults" not in classes


def test_a_lock_entry_is_pruned_without_touching_the_rest(tmp_path: Path) -> None:
    text = "schema: '2.0'\nstages:\n  a@x:\n    cmd: a\n    deps:\n    - path: p\n      md5: 12\n  b:\n    cmd: b\n"
    with chdir(tmp_path):
        Path("dvc.lock").write_text(text)
        leftovers.prune(leftovers.Leftovers([], ["b"]))
        assert Path("dvc.lock").read_text() == text.removesuffix("  b:\n    cmd: b\n")
        assert YAML(typ="safe").load(Path("dvc.lock"))["stages"].keys() == {"a@x"}
