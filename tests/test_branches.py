"""What CI does on a pull request, in a repository with two branches: run, commit, change, run, compare, merge."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

PROJECT = Path(__file__).parent.parent
HEAD = {
    "model": "heads/knn",
    "dataset": "digits",
    "inputs": "features/pixels",
    "training": {},
    "prediction": {"split": "test", "batch_size": 64},
    "evaluation": {"top_k": 2},
}


class Job:
    """A clone of the project with two heads on the pixels of digits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in (
            "pipeline",
            "dvc.yaml",
            "Makefile",
            ".gitattributes",
            ".gitignore",
            ".dvcignore",
            "requirements.lock",
        ):
            path = PROJECT / name
            if path.is_dir():
                shutil.copytree(path, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(path, folder / name)
        for kept in (PROJECT / "reports").glob("*/.gitkeep"):
            (folder / kept.relative_to(PROJECT)).parent.mkdir(parents=True)
            (folder / kept.relative_to(PROJECT)).touch()
        params = YAML(typ="safe").load(PROJECT / "params.yaml")
        pixels = {"inputs": "raw/digits", "backbone": "pixels", "weights": "none", "image_size": 8, "batch_size": 64}
        params |= {"augmentations": {}, "generators": {}, "visualisations": {}, "robustness": {}, "contrasts": {}}
        params |= {"searches": {}}
        params |= {"datasets": {"digits": params["datasets"]["digits"]}, "features": {"pixels": pixels}}
        params["runs"] = {name: {**HEAD, "model_params": {"neighbours": 5}} for name in ("one", "other")}
        params["compare"] = {"gates": {"one": {"top1": {"min_delta": -0.02, "level": 0.95}}}}
        self.write(params)
        self.call("git", "init", "-q", "-b", "main")
        self.call(sys.executable, "-m", "dvc", "init", "-q")
        shutil.copy(PROJECT / ".dvc/config", folder / ".dvc/config")
        self.call("git", "config", "merge.dvc-lock.driver", f'"{sys.executable}" -m pipeline merge-lock %O %A %B')
        self.call("git", "config", "merge.regenerated.driver", "true")

    def install(self) -> None:
        """What `make` would install, taken from the environment of the tests."""
        (self.folder / ".venv").mkdir()
        for path in Path(sys.prefix).iterdir():
            (self.folder / ".venv" / path.name).symlink_to(path)
        stamp = self.folder / ".venv/.installed"
        stamp.unlink(missing_ok=True)
        stamp.touch()

    def write(self, params: dict) -> None:
        self.params = params
        YAML().dump(params, self.folder / "params.yaml")

    def call(self, *command: str, code: int = 0) -> str:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1"}
        names = {f"GIT_{who}_{what}": "x@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        done = subprocess.run(command, cwd=self.folder, env=environment | names, capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def repro(self, message: str) -> str:
        said = self.call(sys.executable, "-m", "pipeline", "repro", "--jobs", "1")
        self.call("git", "add", "-A")
        self.call("git", "commit", "-qm", message)
        return said

    def set(self, run: str, neighbours: int) -> None:
        self.params["runs"][run]["model_params"]["neighbours"] = neighbours
        self.write(self.params)


@pytest.mark.slow
def test_a_branch_is_run_compared_and_merged(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.repro("base")
    job.call("git", "checkout", "-qb", "branch")
    job.set("one", 400)  # a fifth of all training images: too many to tell digits apart
    said = job.repro("many neighbours")
    assert "train@one" in said
    assert "started train@other" not in said

    job.install()
    said = job.call("make", "compare", "BASE=main", code=2)
    assert "Error 3" in said  # the gate's exit code, of which make makes its own
    content = json.loads((tmp_path / "build/compare.json").read_text())
    verdicts = {run["run"]: run for run in content["runs"]}
    assert verdicts["one"]["verdict"] == "worse"
    assert verdicts["one"]["params"] == [{"what": "model_params.neighbours", "base": 5, "head": 400}]
    assert verdicts["other"]["verdict"] == "identical"
    assert [gate["passed"] for gate in content["gates"]] == [False]
    assert "1 of 1 gates failed" in (tmp_path / "build/compare.md").read_text()
    assert "Images whose outcome turned" in (tmp_path / "build/compare.html").read_text()

    job.call("git", "checkout", "-q", "main")
    job.set("one", 5)
    job.set("other", 3)
    job.repro("fewer neighbours for the other")
    job.call("git", "merge", "-q", "--no-edit", "branch")
    said = job.call(sys.executable, "-m", "pipeline", "repro", "--jobs", "1")
    assert "done train@" not in said  # each branch had trained its own run: the data come out of DVC's cache
    metrics = {
        name: json.loads((tmp_path / f"reports/runs/{name}/metrics.json").read_text()) for name in ("one", "other")
    }
    assert metrics["one"]["top1"] == next(m["head"] for m in verdicts["one"]["metrics"] if m["metric"] == "top1")
