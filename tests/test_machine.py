"""Full disks, forbidden folders, little memory, other clocks and languages: nothing is lost, and one line says why."""

import errno
import hashlib
import os
import resource
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline import cli, machine, paths
from pipeline.data import features, pool
from pipeline.data.store import to_row, writing
from pipeline.structures import DatasetInfo, Sample
from pipeline.training import checkpoint as checkpoints
from pipeline.trust import objects

PROJECT = Path(__file__).parent.parent
LARGEST = 20_000  # bytes of a file, where the disk is full
NOISE = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)


def test_a_containers_limit_is_the_machines_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LIMIT", tmp_path / "memory.max")
    whole = machine.memory()
    assert whole == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") > 2**28
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.memory() == whole
    (tmp_path / "memory.max").write_text("1000000\n")
    assert machine.memory() == 1_000_000


def test_work_is_spread_where_the_system_does_not_say_which_cores_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    assert machine.cores() == os.cpu_count()
    assert list(pool.ordered_map(abs, [-1, 2])) == [1, 2]
    assert objects.hashes([Path(__file__)], lambda _: None).keys() == {Path(__file__)}


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond LARGEST."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def info() -> DatasetInfo:
    return DatasetInfo("toy", ["classification"], ["a"], 3, "CC0", "us", "here")


def write_store(path: Path) -> None:
    with writing(path, info()) as writer:
        writer.add("train", to_row(Sample("a", "a.png", NOISE, label=0)))


def write_features(path: Path) -> None:
    split = features.FeatureSplit(["a"], NOISE.reshape(1, -1).astype(np.float32), None)
    features.write(path, info(), {"backbone": "pixels"}, {"train": split})


def write_checkpoint(path: Path) -> None:
    weights = {"w": NOISE.astype(np.float32)}
    checkpoints.save(path, checkpoints.Checkpoint("classification/x", {}, info(), weights))


def write_snapshot(path: Path) -> None:
    import torch

    with paths.written_whole(path) as temporary, temporary.open("wb") as file:
        torch.save({"w": torch.from_numpy(NOISE)}, file)


def write_page(path: Path) -> None:
    with paths.written_whole(path) as temporary:
        temporary.write_text("<p>" * LARGEST)


def write_table(path: Path) -> None:
    import pyarrow as pa

    with paths.written_whole(path) as temporary:
        pq.write_table(pa.table({"x": NOISE.ravel()}), temporary, compression="none")


def write_picture(path: Path) -> None:
    from pipeline.visualise import draw

    draw.save(path, NOISE)


def write_json(path: Path) -> None:
    paths.write_json(path, {"x": list(range(LARGEST))})


WRITERS = (
    write_json, write_page, write_table, write_picture, write_store, write_features, write_checkpoint, write_snapshot,
)  # fmt: skip


def state(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_a_full_disk_leaves_the_old_output_and_nothing_half(
    tmp_path: Path, write: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out"
    write(path)
    before = state(tmp_path)
    with full_disk(), pytest.raises((OSError, RuntimeError)) as caught:
        write(path)
    assert state(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    if isinstance(caught.value, OSError):
        message, code = cli._explain(caught.value)
        assert code == 1
        assert message.endswith("; fix: free some space, then run it again")
    write(path)
    assert state(tmp_path) == before


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EACCES, "change its permissions"),
        (errno.EROFS, "change its permissions"),
        (errno.EPERM, "change its permissions"),
    ],
)
def test_what_the_system_refuses_says_what_to_do(number: int, fix: str) -> None:
    message, code = cli._explain(OSError(number, os.strerror(number), "reports/runs/x"))
    assert message.startswith(f"reports/runs/x: {os.strerror(number)}; fix: {fix}")
    assert code == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_read_only_folder_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(PermissionError):
        paths.write_json(tmp_path / "reports/x.json", {})
    tmp_path.chmod(0o755)
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_must_be_is_one_line_and_stays(tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("mine")
    with pytest.raises(OSError, match="reports") as caught:
        paths.write_json(tmp_path / "reports/runs/x.json", {})
    assert cli._explain(caught.value)[1] == 1
    assert (tmp_path / "reports").read_text() == "mine"


def bomb(path: Path, side: int) -> None:
    """A PNG of side x side pixels in a few kilobytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    row = b"\0" * (1 + 3 * side)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b""))


@pytest.mark.slow
def test_a_bomb_is_refused_within_three_gigabytes(tmp_path: Path) -> None:
    bomb(tmp_path / "bomb.png", 20_000)
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))\n"
        "from pathlib import Path\nfrom pipeline.data import images\n"
        "try:\n    images.decode(Path(sys.argv[1]).read_bytes(), 3)\n"
        "except images.ImageError as error:\n    print('refused', error)\n"
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "bomb.png")], env=environment, capture_output=True, text=True
    )
    assert done.stdout.startswith("refused "), done.stderr


def test_too_little_memory_is_one_line() -> None:
    message, code = cli._explain(MemoryError("Unable to allocate 9.31 GiB"))
    assert code == 1
    assert message.startswith("not enough memory (Unable to allocate 9.31 GiB); fix: ")


PARAMS = """
defaults: {device: cpu, precision: float32, threads: 1, seed: 0, training: {}}
tracking: {uri: "sqlite:///mlflow.db", experiment: toy, required: false, timeout: 5}
datasets:
  digits: {source: digits, inputs: requirements.lock, options: {}}
augmentations: {}
features:
  pixels: {inputs: raw/digits, backbone: pixels, weights: none, image_size: 4, batch_size: 256}
runs:
  knn: {model: heads/knn, dataset: digits, inputs: features/pixels, model_params: {neighbours: 3}, training: {},
    prediction: {split: test, batch_size: 64}, evaluation: {top_k: 2}}
generators: {}
visualisations: {}
"""
STEPS = ("download digits", "extract pixels", "train knn", "predict knn", "evaluate knn", "report")
ELSEWHERE = """
import socket, time
of_now = time.time
time.time = lambda: of_now() + 10 * 365 * 86400
def refused(*_, **__):
    raise OSError("no network")
socket.socket.connect = socket.create_connection = refused
"""


def run_job(folder: Path, environment: dict[str, str]) -> dict[str, str]:
    """The hash of each output of a small job, run with these variables and hardly any others."""
    folder.mkdir()
    (folder / "params.yaml").write_text(PARAMS)
    (folder / "requirements.lock").write_text("nothing\n")
    for name in ("runs", "data", "generators", "visualise", "robustness", "searches"):
        (folder / "reports" / name).mkdir(parents=True)
    code = "import sys; from pipeline import cli; sys.exit(max(cli.main(step.split()) for step in sys.argv[1:]))"
    kept = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH") if key in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", code, *STEPS],
        cwd=folder,
        env={**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT), **environment},
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = [p for place in ("data", "reports") for p in (folder / place).rglob("*") if p.is_file()]
    assert len(found) > 10
    own = {p for p in found if p.name == "ledger.jsonl"}
    return {str(p.relative_to(folder)): hashlib.md5(p.read_bytes()).hexdigest() for p in found if p not in own}


@pytest.mark.slow
def test_clock_language_home_and_network_change_no_byte(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(ELSEWHERE)
    plain = run_job(tmp_path / "here", {"HOME": str(tmp_path), "LANG": "C.UTF-8", "TZ": "UTC"})
    other = {
        "PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{PROJECT}",
        "HOME": "/proc/nowhere",
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "TZ": "Pacific/Kiritimati",
        "PYTHONHASHSEED": "7",
    }
    assert run_job(tmp_path / "another place with spaces", other) == plain
