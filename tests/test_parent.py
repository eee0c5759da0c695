"""A stage ends with the dvc that started it, however that ends."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import parent

PROJECT = Path(__file__).parent.parent
STAGE = f"""
import os, signal, sys, time
sys.path.insert(0, {str(PROJECT)!r})
from pipeline import launch, parent
signal.signal(signal.SIGTERM, launch._stop)
parent.end_with_dvc()
open("pid", "w").write(str(os.getpid()))
try:
    time.sleep(60)
finally:
    open("cleaned", "w").close()
"""


def lives(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_for(condition, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


def started(folder: Path) -> int:
    assert wait_for(lambda: (folder / "pid").is_file() and (folder / "pid").read_text()), "the stage did not start"
    return int((folder / "pid").read_text())


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_stage_ends_when_its_dvc_is_killed(tmp_path: Path, number: int) -> None:
    (tmp_path / "stage.py").write_text(STAGE)
    graph = {"stages": {"stage": {"cmd": f"{sys.executable} stage.py pipeline", "outs": ["out"]}}}
    (tmp_path / "dvc.yaml").write_text(json.dumps(graph))
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "-q", "--no-scm"], cwd=tmp_path, env=environment, check=True)
    repro = subprocess.Popen(
        [*dvc, "repro"], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    pid = started(tmp_path)
    repro.send_signal(number)
    repro.wait(20)
    assert wait_for(lambda: not lives(pid)), "the stage outlived dvc"
    assert (tmp_path / "cleaned").is_file()  # it left through its finally blocks


@needs_proc
@pytest.mark.parametrize("shell", [["sh", "-c", "{python} stage.py pipeline; true"], ["{python}", "stage.py"]])
def test_the_process_above_a_shell_counts_and_a_stage_started_by_hand_is_left_alone(
    tmp_path: Path, shell: list[str]
) -> None:
    (tmp_path / "stage.py").write_text(STAGE)
    command = [word.format(python=sys.executable) for word in shell]
    above = f"import subprocess; subprocess.Popen({command!r}).wait()"
    for mark, lives_on in ((parent.STARTED_BY_DVC, False), ("NOT_BY_DVC", True)):
        (tmp_path / "pid").unlink(missing_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-c", above],
            cwd=tmp_path,
            env={**os.environ, mark: "train@x"},
            stderr=subprocess.DEVNULL,
        )
        pid = started(tmp_path)
        process.kill()
        process.wait()
        if lives_on:
            time.sleep(0.5)
            assert lives(pid)
            os.kill(pid, signal.SIGKILL)
        assert wait_for(lambda pid=pid: not lives(pid))


BECOMES = f"""
import os, sys
sys.path.insert(0, {str(PROJECT)!r})
from pipeline import parent
parent.end_with_dvc()
launcher = "import subprocess, sys; subprocess.run([sys.executable, 'stage.py'])"
os.execve(sys.executable, [sys.executable, "-c", launcher], os.environ)
"""


@needs_proc
@pytest.mark.parametrize("has_pidfd", [True, False])
def test_what_a_stage_launches_ends_with_its_dvc_too(tmp_path: Path, has_pidfd: bool) -> None:
    without = "" if has_pidfd else "import os\ndel os.pidfd_open\n"
    (tmp_path / "stage.py").write_text(without + STAGE)
    (tmp_path / "becomes.py").write_text(without + BECOMES)
    above = "import subprocess, sys; subprocess.Popen([sys.executable, 'becomes.py']).wait()"
    environment = {**os.environ, parent.STARTED_BY_DVC: "train@x"}
    process = subprocess.Popen([sys.executable, "-c", above], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    pid = started(tmp_path)
    process.kill()
    process.wait()
    assert wait_for(lambda: not lives(pid)), "the stage outlived dvc"
    assert (tmp_path / "cleaned").is_file()


def test_processes_of_another_machine_are_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(parent.ABOVE, f"{platform.node()} 12 13")
    assert parent._inherited() == [12, 13]
    monkeypatch.setenv(parent.ABOVE, "elsewhere 12 13")
    assert parent._inherited() == []
    monkeypatch.delenv(parent.ABOVE)
    assert parent._inherited() == []


@needs_proc
def test_workers_of_a_killed_process_do_not_wait_for_work_for_ever(tmp_path: Path) -> None:
    code = (
        "import time\nfrom pathlib import Path\n"
        "from pipeline.data import pool\n"
        "if __name__ == '__main__':\n"
        "    pool.os.sched_getaffinity = lambda _: {0, 1}\n"
        "    for _ in pool.ordered_map(time.sleep, [0.05] * 10_000, chunk=2):\n"
        "        children = Path(f'/proc/{pool.os.getpid()}/task/{pool.os.getpid()}/children').read_text()\n"
        "        Path('children').write_text(children)\n"
    )
    (tmp_path / "main.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    process = subprocess.Popen([sys.executable, "main.py"], cwd=tmp_path, env=environment)
    assert wait_for(lambda: (tmp_path / "children").is_file() and (tmp_path / "children").read_text())
    children = [int(pid) for pid in (tmp_path / "children").read_text().split()]
    assert len(children) >= 2
    process.kill()
    process.wait()
    assert wait_for(lambda: not any(map(lives, children))), "workers outlived their process"
