"""`pipeline repro` against `dvc repro` on toy projects: the same lock, order kept, GPUs alone, no orphans."""

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.errors import ParamsError, PipelineError
from pipeline.machine import cores, memory
from pipeline.params import Params, load
from pipeline.progress import REPORT, progress
from pipeline.scheduling import graph, lockfile
from pipeline.scheduling.resources import LAUNCHED, Machine, Needs, Pool, machine, needs
from pipeline.scheduling.scheduler import Plan, repro
from pipeline.scheduling.table import Lines

PROJECT = Path(__file__).parent.parent
DVC = [sys.executable, "-m", "dvc"]
ENVIRONMENT = {**os.environ, "DVC_NO_ANALYTICS": "1", "PYTHONPATH": str(PROJECT), "SHELL": "/bin/sh"}

Stages = dict[str, dict[str, Any]]

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # DVC's own use of pygtrie


def call(command: list[str], folder: Path, code: int = 0) -> str:
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def project(folder: Path, stages: Stages) -> Path:
    """A DVC project of these stages; every dependency that none of them makes is a file that is there."""
    folder.mkdir(parents=True)
    made = {out for stage in stages.values() for out in stage["outs"]}
    for stage in stages.values():
        for dep in stage.get("deps", []):
            if dep not in made:
                (folder / dep).write_text(dep)
    (folder / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    (folder / ".gitignore").write_text("/data/\n/*.txt\n/events\n")
    call(["git", "init", "-q"], folder)
    call([*DVC, "init", "-q"], folder)
    return folder


def stage(name: str, *above: str, body: str = "") -> dict[str, Any]:
    """Its output is its name and the outputs before it; it notes start and end in `events`."""
    deps = [f"{each}.txt" for each in above]
    note = "echo {} " + name + " >> events"
    command = [note.format("start"), *([body] if body else []), f"cat /dev/null {' '.join(deps)} > {name}.tmp"]
    command += [f"echo {name} >> {name}.tmp", f"mv {name}.tmp {name}.txt", note.format("end")]
    return {"cmd": " && ".join(command), "deps": deps or ["source"], "outs": [f"{name}.txt"]}


DIAMOND = {
    "top": stage("top"),
    "left": stage("left", "top"),
    "right": stage("right", "top"),
    "end": stage("end", "left", "right"),
    "alone": stage("alone"),
}


def run(folder: Path, **options: Any) -> dict[str, str]:
    """A repro on eight cores, whatever this machine has."""
    options.setdefault("plan", lambda graph: Plan(Pool(Machine(cores=8, memory_mb=8000))))
    with chdir(folder):
        return repro(show=Lines(), **options)


def events(folder: Path) -> list[tuple[str, str]]:
    path = folder / "events"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [(line.split()[0], line.split()[1]) for line in lines]


def lock(folder: Path) -> bytes:
    return (folder / "dvc.lock").read_bytes()


def cache(folder: Path) -> set[str]:
    """The objects of DVC's cache; a folder's or a run's entry is named after its content."""
    root = folder / ".dvc/cache"
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def is_clean(folder: Path) -> bool:
    return json.loads(call([*DVC, "status", "--json"], folder)) == {}


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = project(tmp_path_factory.mktemp("serial") / "project", DIAMOND)
    call([*DVC, "repro"], folder)
    return folder


@pytest.mark.parametrize("jobs", [1, 3])
def test_lock_and_cache_are_those_of_dvc_repro(tmp_path: Path, serial: Path, jobs: int) -> None:
    folder = project(tmp_path / "project", DIAMOND)
    assert set(run(folder, jobs=jobs).values()) == {"ran"}
    assert lock(folder) == lock(serial)
    assert cache(folder) == cache(serial)
    assert is_clean(folder)
    assert "didn't change" in call([*DVC, "repro"], folder)
    assert lock(folder) == lock(serial)
    assert set(run(folder).values()) == {"up to date"}


def test_one_job_runs_in_the_order_of_dvc_repro(tmp_path: Path, serial: Path) -> None:
    folder = project(tmp_path / "project", DIAMOND)
    run(folder, jobs=1)
    assert events(folder) == events(serial)


def test_new_entries_stand_behind_old_ones_as_dvc_leaves_them(tmp_path: Path) -> None:
    locks = []
    for name in ("serial", "parallel"):
        folder = project(tmp_path / name, {key: DIAMOND[key] for key in ("top", "left")})
        call([*DVC, "repro"], folder)
        (folder / "dvc.yaml").write_text(json.dumps({"stages": {"first": stage("first", body="sleep 0.3"), **DIAMOND}}))
        if name == "serial":
            call([*DVC, "repro"], folder)
        else:
            run(folder, jobs=4)
        locks.append(lock(folder))
    assert locks[0] == locks[1]


def test_what_is_below_the_same_bytes_does_not_run(tmp_path: Path) -> None:
    folder = project(tmp_path / "project", DIAMOND)
    run(folder)
    (folder / "events").unlink()
    stages = {**DIAMOND, "top": stage("top", body="true")}  # another command, the same output
    (folder / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    states = run(folder)
    assert states == {**dict.fromkeys(DIAMOND, "up to date"), "top": "ran"}
    assert {name for _, name in events(folder)} == {"top"}


def test_targets_run_with_what_they_need_alone(tmp_path: Path) -> None:
    folder = project(tmp_path / "project", DIAMOND)
    assert run(folder, targets=["left"]) == {"top": "ran", "left": "ran"}
    with pytest.raises(PipelineError, match="nothing_such"):
        run(folder, targets=["nothing_such"])


def test_an_earlier_run_is_restored(tmp_path: Path) -> None:
    folder = project(tmp_path / "project", DIAMOND)
    run(folder)
    before = lock(folder)
    (folder / "source").write_text("other")
    run(folder)
    (folder / "source").write_text("source")
    assert run(folder)["top"] == "restored"
    assert lock(folder) == before


def failing(name: str, *above: str) -> dict[str, Any]:
    return stage(name, *above, body="echo it broke >&2 && false")


def test_a_failure_stops_what_depends_on_it_and_the_rest_goes_on_if_told_to(tmp_path: Path) -> None:
    folder = project(tmp_path / "project", {**DIAMOND, "left": failing("left", "top"), "far": stage("far", "right")})
    states = run(folder, jobs=2, keep_going=True)
    expected = {"top": "ran", "left": "failed", "right": "ran", "end": "skipped", "alone": "ran", "far": "ran"}
    assert states == expected
    log = (folder / "data/logs/left.log").read_text()
    assert "it broke" in log
    assert "failed to run" in log
    (folder / "dvc.yaml").write_text(json.dumps({"stages": {**DIAMOND, "far": stage("far", "right")}}))
    assert run(folder) == {**dict.fromkeys([*DIAMOND, "far"], "up to date"), "left": "ran", "end": "ran"}


def test_after_a_failure_nothing_new_is_started(tmp_path: Path) -> None:
    stages = {"broken": failing("broken"), "next": stage("next"), "far": stage("far", "next")}
    states = run(project(tmp_path / "project", stages), jobs=1)
    assert states == {"broken": "failed", "next": "skipped", "far": "skipped"}


def test_no_two_stages_share_a_gpu_or_a_core(tmp_path: Path) -> None:
    """Twelve GPU stages on four simulated GPUs, each noting the index that it sees; two wide ones on three cores."""
    body = "echo start $CUDA_VISIBLE_DEVICES $$ >> gpus && sleep 0.15 && echo end $CUDA_VISIBLE_DEVICES $$ >> gpus"
    stages = {f"gpu_{index}": stage(f"gpu_{index}", body=body) for index in range(12)}
    stages["cpu"] = stage("cpu", body='test "$CUDA_VISIBLE_DEVICES" = ""')
    folder = project(tmp_path / "project", stages)
    needs = {name: Needs(gpu=name.startswith("gpu")) for name in stages}
    pool = Pool(Machine(cores=8, memory_mb=8000, gpus=("0", "1", "2", "3")))
    states = run(folder, plan=lambda graph: Plan(pool, needs))
    assert set(states.values()) == {"ran"}
    held: dict[str, str] = {}
    most = 0
    for line in (folder / "gpus").read_text().splitlines():
        what, index, process = line.split()
        assert index in "0123"
        if what == "start":
            assert index not in held
            held[index] = process
            most = max(most, len(held))
        else:
            assert held.pop(index) == process
    assert most > 1


def test_the_pool_counts_threads_memory_and_gpus() -> None:
    pool = Pool(Machine(cores=4, memory_mb=1000, gpus=("3", "5")))
    assert pool.fits(Needs(threads=9, memory_mb=5000))  # alone, for it would never run
    assert pool.take("a", Needs(threads=2, gpu=True)) == "3"
    assert pool.take("b", Needs(threads=1, memory_mb=500, gpu=True)) == "5"
    assert pool.fits(Needs(threads=1))
    assert not pool.fits(Needs(threads=2))
    assert not pool.fits(Needs(memory_mb=401))  # 90% of 1000 are there to give, 500 of them taken
    assert pool.fits(Needs(memory_mb=399))
    assert not pool.fits(Needs(gpu=True))
    assert pool.fits_once_gone(Needs(threads=3, gpu=True), {"a"})
    assert pool.take("c", Needs(threads=1)) is None
    pool.give_back("a")
    assert pool.take("d", Needs(gpu=True)) == "3"


def test_a_launched_stage_has_all_gpus_alone() -> None:
    pool = Pool(Machine(cores=4, memory_mb=1000, gpus=("3", "5")), per_gpu=2, oversubscribe=True)
    assert pool.take("a", Needs(gpu=True)) == "3"
    assert not pool.fits(Needs(gpu=True, all_gpus=True))
    assert pool.fits_once_gone(Needs(gpu=True, all_gpus=True), {"a"})
    pool.give_back("a")
    assert pool.take("b", Needs(gpu=True, all_gpus=True)) == "3,5"
    assert not pool.fits(Needs(gpu=True))
    assert pool.fits(Needs())


def toy_params(folder: Path, resources: str = "") -> Params:
    path = folder / "params.yaml"
    path.write_text((PROJECT / "tests/toy_params.yaml").read_text() + resources)
    return load(path)


def test_models_that_are_fitted_and_handmade_features_need_no_gpu(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    content = YAML(typ="safe").load((PROJECT / "tests/toy_params.yaml").read_text())
    for backbone in ("pixels", "colour_histogram", "hog", "visual_words"):
        content["features"][backbone] = {**content["features"]["lite0"], "backbone": backbone, "weights": "none"}
    content["runs"]["of_hog"] = {**content["runs"]["linear"], "inputs": "features/hog"}
    content["runs"]["of_table"] = {
        **content["runs"]["linear"], "model": "regression/linear", "model_params": {}, "evaluation": {}
    }  # fmt: skip
    for name in ("linear", "of_hog", "resnet"):
        content["robustness"][name] = {
            "run": name, "dataset": "digits", "metric": "top1", "corruptions": [], "severities": [1]
        }  # fmt: skip
    content["visualisations"]["rows"] = {**content["visualisations"]["gradcam"], "inputs": "checkpoints/linear"}
    YAML(typ="safe").dump(content, path)
    params = load(path)

    def has_gpu(verb: str, name: str) -> bool:
        return needs(params, verb, name, memory_mb=0, has_gpus=True).gpu

    assert not any(has_gpu("extract", name) for name in ("pixels", "colour_histogram", "hog", "visual_words"))
    assert has_gpu("extract", "lite0")
    assert not any(has_gpu(verb, name) for verb in ("train", "predict") for name in ("linear", "of_hog", "of_table"))
    assert not has_gpu("visualise", "rows")
    assert has_gpu("visualise", "gradcam")
    assert has_gpu("corrupt", "resnet")
    assert has_gpu("corrupt", "linear")  # each new image goes through the backbone
    assert not has_gpu("corrupt", "of_hog")


RESOURCES = """
resources:
  train:
    memory_gb: 2
  resnet:
    threads: 3
  train@resnet:
    device: cpu
"""


def test_what_stages_need_follows_from_their_work_unless_params_say_otherwise(tmp_path: Path) -> None:
    params = toy_params(tmp_path)

    def asked(verb: str, name: str | None) -> Needs:
        return needs(params, verb, name, memory_mb=700.0, has_gpus=True)

    assert params.defaults.threads == 2
    assert asked("train", "resnet") == asked("predict", "resnet") == Needs(2, 700.0, gpu=True)
    assert asked("train", "linear") == asked("evaluate", "resnet") == asked("report", None) == Needs(1, 700.0)
    assert asked("download", "digits") == Needs(cores(), 700.0)
    assert needs(params, "train", "resnet", memory_mb=0, has_gpus=False) == Needs(2, 0)
    params = toy_params(tmp_path, RESOURCES)
    assert asked("train", "resnet") == Needs(3, 2048.0)
    assert asked("predict", "resnet") == Needs(3, 700.0, gpu=True)
    assert asked("train", "linear") == Needs(1, 2048.0)


def test_networks_under_a_launcher_need_all_cores_and_gpus(tmp_path: Path) -> None:
    params = toy_params(tmp_path)
    params = params.model_copy(update={"defaults": params.defaults.model_copy(update={"launch": "torchrun"})})
    for verb, name in (("train", "resnet"), ("train", "vae"), ("extract", "lite0"), ("sample", "vae")):
        assert needs(params, verb, name, memory_mb=0, has_gpus=True) == Needs(cores(), 0, gpu=True, all_gpus=True)
    assert needs(params, "predict", "resnet", memory_mb=0, has_gpus=False) == Needs(cores())
    assert needs(params, "train", "linear", memory_mb=0, has_gpus=True) == Needs()
    assert needs(params, "visualise", "gradcam", memory_mb=0, has_gpus=True) == Needs(2, gpu=True)


def test_the_stages_that_become_a_launcher_are_known() -> None:
    stages = (PROJECT / "pipeline/stages").glob("*.py")
    assert {path.stem for path in stages if "params.defaults.launch" in path.read_text()} == set(LAUNCHED)


def test_resources_of_what_there_is_not_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"resources.resnt: no command, entry or command@entry 'resnt'; did you mean"):
        toy_params(tmp_path, "resources:\n  resnt:\n    threads: 1\n")
    with pytest.raises(ParamsError, match=r"resources.train.device: should be 'cpu' or 'gpu' \('tpu'\)"):
        toy_params(tmp_path, "resources:\n  train:\n    device: tpu\n")


def test_the_pool_has_no_more_memory_than_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.machine.LIMIT", tmp_path / "memory.max")
    assert machine()[:2] == (cores(), memory() / 2**20)
    (tmp_path / "memory.max").write_text(f"{3 * 2**20}\n")
    assert machine().memory_mb == 3.0


@pytest.mark.parametrize(
    ("visible", "gpus"), [("0,2", ("0", "2")), ("", ()), ("-1", ()), (" 1 , GPU-ab", ("1", "GPU-ab"))]
)
def test_visible_gpus_are_those_of_the_environment(
    visible: str, gpus: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine().gpus == gpus


def test_a_loop_tells_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report"
    monkeypatch.setenv(REPORT, str(path))
    loop = iter(progress(range(3), "train"))
    assert [next(loop), next(loop)] == [0, 1]
    assert json.loads(path.read_text()) == ["train", 1, 3]
    assert list(loop) == [2]
    assert json.loads(path.read_text()) == ["train", 3, 3]


def test_priorities_are_the_longest_paths() -> None:
    #      a 1 -> b 5 -> d 1;  a 1 -> c 2 -> d 1;  e 4
    upstream = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"], "e": []}
    seconds = {"a": 1.0, "b": 5.0, "c": 2.0, "d": 1.0, "e": 4.0}
    assert graph.priorities(upstream, seconds) == {"a": 7.0, "b": 6.0, "c": 3.0, "d": 1.0, "e": 4.0}


def test_the_longest_path_starts_first(tmp_path: Path) -> None:
    stages = {name: stage(name) for name in ("short", "long", "middle")}
    folder = project(tmp_path / "project", {**stages, "below": stage("below", "short")})
    seconds = {"short": 1.0, "long": 9.0, "middle": 3.0, "below": 4.0}  # short and below: 5
    one_core = Pool(Machine(cores=1, memory_mb=1000))
    run(folder, plan=lambda graph: Plan(one_core, seconds=seconds))
    assert [name for what, name in events(folder) if what == "start"] == ["long", "short", "below", "middle"]


def test_a_wide_stage_is_passed_only_by_what_is_over_before_it_can_start(tmp_path: Path) -> None:
    """`first` holds one of two cores, which `wide` waits for: `narrow` passes it, `long` would keep it waiting."""
    stages = {"gate": stage("gate"), "first": stage("first", body="sleep 1.5")}
    stages |= {name: stage(name, "gate") for name in ("wide", "long", "narrow")}
    folder = project(tmp_path / "project", stages)
    seconds = {"gate": 0.1, "first": 5.0, "wide": 80.0, "long": 50.0, "narrow": 1.0}
    two_cores = Pool(Machine(cores=2, memory_mb=1000))
    run(folder, plan=lambda graph: Plan(two_cores, {"wide": Needs(threads=2)}, seconds))
    starts = [name for what, name in events(folder) if what == "start"]
    assert set(starts[:2]) == {"gate", "first"}
    assert starts[2:] == ["narrow", "wide", "long"]


def test_lock_entries_take_their_place_as_text(tmp_path: Path) -> None:
    path = tmp_path / "dvc.lock"
    entry = {"cmd": "x", "deps": [{"path": "a", "md5": "1"}]}
    block = "    cmd: x\n    deps:\n    - path: a\n      md5: '1'\n"
    for name in ("c", "a"):
        assert lockfile.put(path, name, entry, ["a", "b", "c"])
    assert path.read_text() == f"schema: '2.0'\nstages:\n  a:\n{block}  c:\n{block}"
    path.write_text(path.read_text() + "datasets:\n- name: x\n")
    assert lockfile.put(path, "b", entry, ["b"])  # a and c are older now
    assert path.read_text() == f"schema: '2.0'\nstages:\n  a:\n{block}  c:\n{block}  b:\n{block}datasets:\n- name: x\n"
    assert lockfile.put(path, "a", {"cmd": "y"}, [])
    assert path.read_text().startswith("schema: '2.0'\nstages:\n  a:\n    cmd: y\n  c:\n")


def test_a_lock_of_another_layout_is_left_to_dvc(tmp_path: Path) -> None:
    path = tmp_path / "dvc.lock"
    for text in ("stages: {}\n", "<<<<<<< HEAD\n", "stages:\n- a\n"):
        path.write_text(text)
        assert not lockfile.put(path, "a", {"cmd": "x"}, [])
        assert path.read_text() == text


SCRIPT = """
import sys
from pipeline.errors import PipelineError
from pipeline.scheduling.resources import Machine, Pool
from pipeline.scheduling.scheduler import Interrupted, Plan, repro
from pipeline.scheduling.table import Lines
try:
    states = repro(keep_going=True, plan=lambda graph: Plan(Pool(Machine(4, 1000))), show=Lines())
except Interrupted as interrupted:
    sys.exit(128 + interrupted.number)
except PipelineError as error:
    sys.exit(f"error: {error}")
sys.exit(3 if "failed" in states.values() else 0)
"""


@contextmanager
def scheduler(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A repro in a process of its own, which is ended at the latest with the test."""
    with (folder.parent / "said").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT], cwd=folder, env=ENVIRONMENT, stdout=said, stderr=said
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(path: Path, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.02)


def processes_in(folder: Path) -> list[int]:
    """Living processes that work in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_there = Path(os.readlink(process / "cwd")) == folder
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if is_there and state not in "ZX":
            found.append(int(process.name))
    return found


def is_at_rest(folder: Path) -> bool:
    """Whether no process works in a folder and its lock is free, of which the kernel lets go a little after the end."""
    if processes_in(folder):
        return False
    with (folder / ".dvc/tmp/pipeline-repro.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


ENDLESS = {
    "slow_a": stage("slow_a", body="(while true; do echo x >> beat; sleep 0.05; done)"),
    "slow_b": stage("slow_b", body="sh -c 'touch slow_b_runs; sleep 60'"),
    "quick": stage("quick"),
}


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs Linux's /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_child_outlives_the_scheduler(tmp_path: Path, number: int) -> None:
    folder = project(tmp_path / "project", ENDLESS)
    with scheduler(folder) as process:
        for name in ("beat", "slow_b_runs", "dvc.lock"):
            wait_for(folder / name)
        process.send_signal(number)
        process.wait(timeout=30)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    end = time.monotonic() + (15 if number == signal.SIGKILL else 0.5)
    while not is_at_rest(folder):
        assert time.monotonic() < end, "an orphan"
        time.sleep(0.05)
    beats = (folder / "beat").stat().st_size
    time.sleep(0.3)
    assert (folder / "beat").stat().st_size == beats
    (folder / "dvc.yaml").write_text(json.dumps({"stages": {name: stage(name) for name in ENDLESS}}))
    assert run(folder)["slow_a"] == "ran"
    assert is_clean(folder)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs Linux's /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_after_a_kill_the_rest_takes_its_place_in_the_lock(tmp_path: Path, number: int) -> None:
    names = ["a", "b", "c", "d"]
    stages = {name: stage(name, body="test -e go || sleep 60" if name in "ac" else "true") for name in names}
    stages |= {"below": stage("below", "d")}
    locks = []
    for name in ("serial", "parallel"):
        folder = project(tmp_path / name, stages)
        if name == "parallel":
            with scheduler(folder) as process:
                wait_for_entries(folder, {"b", "d", "below"})
                process.send_signal(number)
                process.wait(timeout=30)
            while not is_at_rest(folder):
                time.sleep(0.05)
        (folder / "go").touch()
        call([*DVC, "repro"], folder) if name == "serial" else run(folder)
        locks.append(lock(folder))
    assert next(iter(entries(tmp_path / "serial"))) == "a"
    assert locks[0] == locks[1]
    assert not (tmp_path / "parallel/.dvc/tmp/pipeline-repro.json").exists()


def wait_for_entries(folder: Path, names: set[str], seconds: float = 30) -> None:
    wait_for(folder / "dvc.lock", seconds)
    end = time.monotonic() + seconds
    while set(entries(folder)) != names:
        assert time.monotonic() < end, f"dvc.lock holds {list(entries(folder))}"
        time.sleep(0.02)


WRITES_SOURCE: Stages = {"a": {"cmd": "touch source", "outs": ["source"]}}


def in_use(folder: Path, *holders: int) -> Path:
    """DVC's list of paths in use, in which each of these processes writes a file and reads the source."""
    path = folder / ".dvc/tmp/rwlock"
    infos = [{"pid": pid, "cmd": "dvc"} for pid in holders]
    files = {str(folder / f"file{info['pid']}"): info for info in infos}
    path.write_text(json.dumps({"write": files, "read": {str(folder / "source"): infos}}))
    return path


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs Linux's /proc")
@pytest.mark.parametrize("command", ["true", "sleep 60"])
def test_what_killed_processes_hold_of_dvc_is_free_again(tmp_path: Path, command: str) -> None:
    """One is a zombie, for nobody waits for it; the other has got its number since."""
    folder = project(tmp_path / "project", WRITES_SOURCE)
    process = subprocess.Popen(command.split())
    path = in_use(folder, process.pid, 2**22 + 1)  # a number that no process has
    if command == "true":
        while Path(f"/proc/{process.pid}/stat").read_text().split()[2] != "Z":
            time.sleep(0.01)
    else:
        os.utime(path, (1, 1))
    assert run(folder) == {"a": "ran"}
    assert not any(json.loads(path.read_text()).values())
    process.kill()
    process.wait()


def test_what_a_living_process_holds_of_dvc_is_not_taken_from_it(tmp_path: Path) -> None:
    folder = project(tmp_path / "project", WRITES_SOURCE)
    path = in_use(folder, os.getppid())
    before = json.loads(path.read_text())
    assert run(folder) == {"a": "failed"}
    assert "is busy" in (folder / "data/logs/a.log").read_text()
    assert json.loads(path.read_text()) == before


def test_a_half_written_list_of_what_is_in_use_stops_nothing(tmp_path: Path) -> None:
    folder = project(tmp_path / "project", {"a": stage("a")})
    (folder / ".dvc/tmp/rwlock").write_text('{"write": {"/a')
    assert run(folder) == {"a": "ran"}


def test_a_second_repro_refuses(tmp_path: Path) -> None:
    folder = project(tmp_path / "project", ENDLESS)
    with scheduler(folder) as process:
        wait_for(folder / "slow_b_runs")
        with pytest.raises(PipelineError, match=rf"another `pipeline repro` .* \(process {process.pid},"):
            run(folder)
        process.terminate()
        process.wait(timeout=30)


def test_a_folder_outside_dvc_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="not in a DVC project"):
        run(tmp_path)


def random_stages(rng: random.Random, num: int) -> tuple[Stages, set[str]]:
    """A graph of sleeping stages, and those of them that fail."""
    names = [f"s{index:02}" for index in range(num)]
    stages, broken = {}, set()
    for index, name in enumerate(names):
        above = rng.sample(names[:index], min(index, rng.choice([0, 0, 1, 1, 2, 3])))
        is_broken = rng.random() < 0.12
        broken |= {name} if is_broken else set()
        stages[name] = stage(
            name, *above, body=f"sleep {rng.uniform(0, 0.25):.2f}" + (" && false" if is_broken else "")
        )
    shuffled = list(stages.items())
    rng.shuffle(shuffled)  # the order in dvc.yaml is not that of the graph
    return dict(shuffled), broken


def mended(stages: Stages) -> Stages:
    return {name: {**each, "cmd": each["cmd"].replace(" && false", "")} for name, each in stages.items()}


def check_order(stages: Stages, noted: list[tuple[str, str]]) -> None:
    """No stage starts before all above it have ended."""
    ended = set()
    for what, name in noted:
        if what == "end":
            ended.add(name)
        else:
            assert {dep.removesuffix(".txt") for dep in stages[name]["deps"]} - {"source"} <= ended


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_random_graphs_with_failures_and_kills_end_as_a_serial_repro(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    stages, broken = random_stages(rng, num=14)
    reference = project(tmp_path / "serial", stages)
    call([*DVC, "repro", "--keep-going"], reference, code=255 if broken else 0)
    folder = project(tmp_path / "parallel", stages)
    states = run(folder, jobs=4, keep_going=True)
    assert {name for name, state in states.items() if state == "failed"} == broken - below(stages, broken)
    check_order(stages, events(folder))
    assert lock(folder) == lock(reference) if (reference / "dvc.lock").exists() else not (folder / "dvc.lock").exists()

    whole = project(tmp_path / "whole", mended(stages))
    call([*DVC, "repro"], whole)
    folder = project(tmp_path / "killed", mended(stages))
    for _ in range(4):
        with scheduler(folder) as process:
            time.sleep(rng.uniform(0.8, 2.0))
            process.send_signal(rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
            process.wait(timeout=30)
        end = time.monotonic() + 20
        while not is_at_rest(folder):
            assert time.monotonic() < end, "an orphan"
            time.sleep(0.05)
    (folder / "events").unlink(missing_ok=True)
    assert set(run(folder, jobs=4).values()) <= {"ran", "up to date", "restored"}
    assert lock(folder) == lock(whole)
    assert cache(folder) >= cache(whole)
    assert is_clean(folder)


def below(stages: Stages, names: set[str]) -> set[str]:
    """All that stands below any of the names."""
    found: set[str] = set()
    while (
        grown := {
            name
            for name, each in stages.items()
            if any(dep.removesuffix(".txt") in names | found for dep in each["deps"])
        }
        - found
    ):
        found |= grown
    return found


def entries(folder: Path) -> dict[str, str]:
    parts = lockfile.entries(folder / "dvc.lock")
    assert parts is not None
    return parts[1]
