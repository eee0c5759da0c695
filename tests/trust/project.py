"""A project of two stages under git and DVC, for tests of its state."""

import json
import os
import subprocess
import sys
from pathlib import Path

PROJECT = str(Path(__file__).parents[2])
DVC = [sys.executable, "-m", "dvc"]
MAKE = """
import json, pathlib
from ruamel.yaml import YAML
rate = YAML(typ="safe").load(open("params.yaml"))["runs"]["one"]["lr"]
folder = pathlib.Path("data/raw/digits")
(folder / "deep").mkdir(parents=True)
(folder / "train.arrow").write_bytes(bytes(range(256)) * 9)
(folder / "deep/val.arrow").write_bytes(b"val")
(folder / "info.json").write_text('{"name": "digits"}')
pathlib.Path("data/weights.bin").write_bytes(b"weights")
"""
SCORE = """
import json, pathlib
report = pathlib.Path("reports/runs/one")
(report / "pictures").mkdir(parents=True)
(report / "metrics.json").write_text(json.dumps({"top1": 0.5}))
(report / "pictures/a.txt").write_text("a picture")
"""
GRAPH = {
    "stages": {
        "make": {
            "cmd": f"{sys.executable} make.py",
            "deps": ["make.py"],
            "params": ["runs.one"],
            "outs": ["data/raw/digits", "data/weights.bin"],
        },
        "score": {
            "cmd": f"{sys.executable} score.py",
            "deps": ["score.py", "data/raw/digits"],
            "metrics": [{"reports/runs/one/metrics.json": {"cache": False}}],
            "plots": [{"reports/runs/one/pictures": {"cache": False}}],
        },
    }
}


def call(folder: Path, *command: str, code: int = 0) -> str:
    """What a command says; it ends with `code`."""
    names = {f"GIT_{who}_{what}": "x@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **names, "DVC_NO_ANALYTICS": "1", "PATH": path, "PYTHONPATH": PROJECT}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    return said


def make(folder: Path) -> Path:
    """Runs and commits it."""
    folder.mkdir()
    (folder / "make.py").write_text(MAKE)
    (folder / "score.py").write_text(SCORE)
    (folder / "dvc.yaml").write_text(json.dumps(GRAPH))
    (folder / "params.yaml").write_text("runs:\n  one:\n    lr: 1e-3\n    sizes: [1, 2]\n")
    (folder / ".gitignore").write_text("/data/*/\n/data/weights.bin\n")
    call(folder, "git", "init", "-q")
    call(folder, *DVC, "init", "-q")
    call(folder, *DVC, "repro", "-q")
    call(folder, "git", "add", "-A")
    call(folder, "git", "commit", "-qm", "made")
    return folder
