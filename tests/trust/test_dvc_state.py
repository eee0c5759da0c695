"""What is wrong in the state that DVC keeps, and what users are told of it."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.trust.project import DVC, GRAPH, SCORE, call

PROJECT = Path(__file__).parents[2]
REPRO = [sys.executable, "-m", "pipeline", "repro"]
PARAMS = (PROJECT / "tests/toy_params.yaml").read_text(encoding="utf-8")


def contents(folder: Path) -> dict[str, str]:
    found = [p for place in ("data", "reports") for p in (folder / place).rglob("*") if p.is_file()]
    return {str(p.relative_to(folder)): hashlib.md5(p.read_bytes()).hexdigest() for p in found}


def error(said: str) -> str:
    """The one line of it that is an error; there is no traceback."""
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    return line


def test_a_clone_at_another_place_pulls_and_runs_nothing(project: Path, tmp_path: Path) -> None:
    call(project, *DVC, "remote", "add", "-d", "away", str(tmp_path / "away"))
    call(project, *DVC, "push", "-q")
    call(project, "git", "commit", "-qam", "a remote")
    call(tmp_path, "git", "clone", "-q", str(project), "a/clone somewhere else".replace(" ", "_"))
    clone = tmp_path / "a/clone_somewhere_else"
    call(clone, *DVC, "pull", "-q")
    assert contents(clone) == contents(project)
    before = (clone / "dvc.lock").read_bytes()
    assert "Running" not in call(clone, *DVC, "repro")
    assert (clone / "dvc.lock").read_bytes() == before == (project / "dvc.lock").read_bytes()
    assert "no faults" in call(clone, sys.executable, "-m", "pipeline", "verify")


def test_two_clones_that_run_end_in_the_same_lock_and_reports(project: Path, tmp_path: Path) -> None:
    states = []
    for name in ("one", "another_place"):
        call(tmp_path, "git", "clone", "-q", str(project), name)
        clone = tmp_path / name
        (clone / "dvc.lock").unlink()
        call(clone, *DVC, "repro", "-q")
        states.append(((clone / "dvc.lock").read_bytes(), contents(clone)))
    assert states[0] == states[1] == ((project / "dvc.lock").read_bytes(), contents(project))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("<<<<<<< ours\nschema: '2.0'\n=======\n>>>>>>> theirs\n", "dvc.lock"),
        ("schema: '2.0'\nstages: 3\n", "dvc.lock"),
        ("\0", "dvc.lock"),
    ],
)
def test_a_spoiled_lock_is_one_line_and_stays_as_it_is(project: Path, text: str, what: str) -> None:
    (project / "params.yaml").write_text(PARAMS)
    (project / "dvc.lock").write_text(text)
    line = error(call(project, *REPRO, code=1))
    assert what in line
    assert "; fix: " in line
    assert (project / "dvc.lock").read_text() == text


def test_an_ignored_or_emptied_lock_is_told(project: Path) -> None:
    (project / "dvc.lock").write_text("")
    assert "dvc.lock: empty; fix: " in error(call(project, sys.executable, "-m", "pipeline", "verify", code=1))
    call(project, "git", "checkout", "-q", "dvc.lock")
    (project / ".gitignore").write_text("/data/\ndvc.lock\n")
    call(project, "git", "rm", "-q", "--cached", "dvc.lock")
    call(project, "git", "commit", "-qam", "without the lock")
    said = call(project, sys.executable, "-m", "pipeline", "verify", "--committed", code=1)
    assert "dvc.lock' is git-ignored" in error(said)
    (project / ".gitignore").write_text("/data/\n")
    said = call(project, sys.executable, "-m", "pipeline", "verify", "--committed", code=1)
    assert error(said) == "error: HEAD:dvc.lock: no such file; fix: dvc repro, then git add dvc.lock"


def test_a_failed_stage_leaves_no_old_figures_and_checkout_restores_what_is_cached(project: Path) -> None:
    before = contents(project)
    script = project / "make.py"
    script.write_text(script.read_text() + "raise SystemExit('nothing more')\n")
    said = call(project, *DVC, "repro", code=255)
    assert "failed to reproduce 'make'" in said
    script.write_text(script.read_text().replace("raise SystemExit('nothing more')\n", ""))
    call(project, *DVC, "checkout", "-q")
    assert contents(project) == before
    (project / "score.py").write_text(SCORE + "raise SystemExit(1)\n")
    (project / "score.py").write_text(
        (project / "score.py").read_text().replace("(report", "raise SystemExit(1)\n(report", 1)
    )
    call(project, *DVC, "repro", "-q", code=255)
    assert not (project / "reports/runs/one/metrics.json").exists()  # DVC took the old ones away first
    call(project, "git", "checkout", "reports", "score.py")
    assert contents(project) == before


def test_an_output_that_is_not_made_and_one_that_git_tracks_are_named(project: Path) -> None:
    (project / "params.yaml").write_text(PARAMS)
    graph = {"stages": {**GRAPH["stages"], "other": {"cmd": "true", "outs": ["never_made.txt"]}}}
    (project / "dvc.yaml").write_text(json.dumps(graph))
    said = call(project, *DVC, "repro", "other", code=255)
    assert "never_made.txt" in said
    assert "Traceback" not in said
    graph["stages"]["other"] = {"cmd": "echo x > make.py", "outs": ["make.py"]}
    (project / "dvc.yaml").write_text(json.dumps({"stages": {"other": graph["stages"]["other"]}}))
    script = (project / "make.py").read_text()
    said = call(project, *DVC, "repro", "other", code=255)
    assert "make.py" in said
    assert "git rm -r --cached" in said
    call(project, "git", "checkout", "-q", "make.py")  # git has it still
    assert (project / "make.py").read_text() == script


@pytest.mark.parametrize("name", ["$(touch hacked)", "`touch hacked`", "x; touch hacked", "x && touch hacked", "x\n"])
def test_no_name_of_params_reaches_a_shell(tmp_path: Path, name: str) -> None:
    for file in ("dvc.yaml", ".dvcignore"):
        shutil.copy(PROJECT / file, tmp_path)
    params = YAML(typ="safe").load(PARAMS)
    params["features"] = {name: params["features"]["lite0"]}
    params["runs"] = {name: {**params["runs"]["linear"], "inputs": f"features/{name}"}}
    params["datasets"] = {"digits": {"source": "digits", "inputs": "$(touch hacked)", "options": {}}, name: {}}
    params |= {"augmentations": {}, "generators": {}, "visualisations": {}}
    YAML().dump(params, tmp_path / "params.yaml")
    (tmp_path / "requirements.lock").touch()
    call(tmp_path, *DVC, "init", "-q", "--no-scm")
    for command in ([*DVC, "repro", "--keep-going"], REPRO):
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(PROJECT), "DVC_NO_ANALYTICS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode != 0
        assert not list(tmp_path.rglob("hacked")), f"{command}: {done.stdout}{done.stderr}"
