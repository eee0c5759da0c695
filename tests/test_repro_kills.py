"""Whole repros killed with -9 at random moments, each gone on with by the next, end as one that nothing disturbed."""

import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.kill_loop import LEFT
from tests.kill_loop import PARAMS as TOY
from tests.test_scheduler import is_at_rest, processes_in

PROJECT = Path(__file__).parent.parent
KEPT = ("defaults", "tracking", "datasets", "features", "runs", "generators")
NAMES = ("digits", "pixels", "knn", "vae")
REPROS = {
    "dvc": [sys.executable, "-m", "dvc", "repro", "report"],
    "pipeline": [sys.executable, "-m", "pipeline", "repro", "--jobs", "2", "report"],
}
KILLS = 10
SHARE = 3  # kills come within this part of an undisturbed repro, so that several fall into each

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc"),
]


def params() -> dict[str, Any]:
    """The job of the kill loop without its images: from digits to a head and a generator."""
    toy = YAML(typ="safe").load(TOY)
    sections = {key: toy[key] for key in KEPT[:2]}
    sections |= {key: {name: entry for name, entry in toy[key].items() if name in NAMES} for key in KEPT[2:]}
    return (
        sections | {key: {} for key in toy.keys() - set(KEPT)} | {"augmentations": {}, "searches": {}, "contrasts": {}}
    )


class Project:
    """A copy of the project with a toy job."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(PROJECT / "pipeline", folder / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
            shutil.copy(PROJECT / name, folder)
        (folder / "requirements.lock").write_text("nothing\n", encoding="utf-8")
        YAML().dump(params(), folder / "params.yaml")
        self.said = folder.parent / "said"
        changed = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(folder.parent / "site"),
            "SHELL": "/bin/sh",
        }
        kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")}
        self.environment = kept | changed
        self.call("git", "init", "-q")
        self.call(sys.executable, "-m", "dvc", "init", "-q")
        shutil.copy(PROJECT / ".dvc/config", folder / ".dvc/config")
        self.reset()

    def reset(self) -> None:
        """As in a fresh clone."""
        for place in ("data", "reports", ".dvc/cache", ".dvc/tmp"):
            shutil.rmtree(self.folder / place, ignore_errors=True)
        (self.folder / "dvc.lock").unlink(missing_ok=True)
        for kept in (PROJECT / "reports").glob("*/.gitkeep"):
            (self.folder / kept.relative_to(PROJECT)).parent.mkdir(parents=True)
            (self.folder / kept.relative_to(PROJECT)).touch()

    def call(self, *command: str) -> str:
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def start(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self.said.open("wb") as said:
            return subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=said, stderr=said, start_new_session=True
            )

    def ends(self, seconds: float) -> bool:
        """Whether no process works in the folder any more, now or within so long."""
        end = time.monotonic() + seconds
        while not is_at_rest(self.folder):
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    def result(self) -> dict[str, str]:
        """The hash of the lock and of every file that stages write, whatever its name."""
        places = [self.folder / place for place in ("data", "reports")]
        aside = {self.folder / "data/ledger.jsonl", self.folder / "data/logs"}  # which hold times
        files = [p for place in places for p in place.rglob("*") if p.is_file() and not aside & {p, *p.parents}]
        return {
            str(p.relative_to(self.folder)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in [*files, self.folder / "dvc.lock"]
        }


def kill(project: Project, process: subprocess.Popen[bytes], what: str) -> None:
    """Kills the repro alone, or it and all that it has started, of whatever process group."""
    os.kill(process.pid, signal.SIGKILL)
    if what == "all":
        while pids := processes_in(project.folder):
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
    process.wait()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict[str, str], dict[str, float]]:
    """The project, its lock and outputs, and the seconds of each repro of it."""
    project = Project(tmp_path_factory.mktemp("kills") / "project")
    results, seconds = [], {}
    for name, command in REPROS.items():
        project.reset()
        started = time.monotonic()
        project.call(*command)
        seconds[name] = time.monotonic() - started
        results.append(project.result())
    assert results[0] == results[1]
    return project, results[0], seconds


@pytest.mark.parametrize("what", ["all", "parent"])
@pytest.mark.parametrize("name", REPROS)
def test_a_killed_repro_goes_on_to_the_same_bytes(
    undisturbed: tuple[Project, dict[str, str], dict[str, float]], name: str, what: str
) -> None:
    project, wanted, seconds = undisturbed
    rng = random.Random(f"{name} {what}")
    project.reset()
    moments: list[float] = []

    def finish(process: subprocess.Popen[bytes]) -> None:
        said = f"after kills at {moments} s: {project.said.read_text(errors='replace')[-3000:]}"
        assert process.wait() == 0, said
        assert project.ends(seconds=5), f"a process lives on {said}"
        assert project.result() == wanted, said
        left = [str(p) for place in ("data", "reports") for p in (project.folder / place).rglob(".*")]
        assert not [path for path in left if LEFT.fullmatch(Path(path).name)], said

    while len(moments) < KILLS:
        process = project.start(REPROS[name])
        moment = rng.uniform(0, seconds[name] / SHARE)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            kill(project, process, what)
            moments.append(round(moment, 2))
            # a `dvc repro` that comes at once meets the stage that has not left yet; `pipeline repro` refuses so long
            if name == "pipeline" or rng.random() < 0.5:
                assert project.ends(seconds=40), f"a stage outlives its repro after kills at {moments} s"
        else:
            finish(process)
            project.reset()
    assert project.ends(seconds=40)
    finish(project.start(REPROS[name]))
    assert not re.search(r"Running|started", project.call(*REPROS["dvc"]))
