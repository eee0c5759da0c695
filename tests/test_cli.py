import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import __version__, cli, launch, paths
from pipeline.errors import PipelineError
from pipeline.peak import peak_mb

PROJECT = Path(__file__).parent.parent
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in this process: exit code, standard output, standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Callable[..., None]], None]:
    """Puts a function in the place of every stage, in an empty folder with a params file of two names."""
    monkeypatch.chdir(tmp_path)
    params = SimpleNamespace(
        defaults=SimpleNamespace(threads=3),
        tracking=SimpleNamespace(timeout=5.0),
        **{section: {"digits": 1, "icons": 2} for command in cli.COMMANDS.values() for section in command.sections},
    )
    monkeypatch.setattr(launch, "load", lambda: params)
    monkeypatch.setattr(launch.os, "environ", dict(os.environ))
    monkeypatch.setattr(launch.signal, "signal", lambda *_: None)

    def put(function: Callable[..., None]) -> None:
        monkeypatch.setattr(launch.importlib, "import_module", lambda _: SimpleNamespace(run=function))

    return put


def python(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=PROJECT, capture_output=True, text=True, **options)


def test_help_lists_every_command_whole_and_in_pipeline_order(run: Run) -> None:
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    positions = [out.index(f"\n  {verb} ") for verb in cli.COMMANDS]
    assert positions == sorted(positions)
    assert all(command.help in out for command in cli.COMMANDS.values())
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("verb", cli.COMMANDS)
def test_each_command_has_help_that_says_what_its_name_is(run: Run, verb: str) -> None:
    code, out, _ = run(verb, "--help")
    assert code == 0
    assert cli.COMMANDS[verb].help in out
    for section in cli.COMMANDS[verb].sections:
        assert section in out


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"{__version__}\n", "")


def test_help_and_version_import_nothing_heavy() -> None:
    code = (
        "import sys; from pipeline.cli import main; main(['--help']); main(['--version']); "
        "print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    modules = python("-c", code).stdout.splitlines()[-1]
    for heavy in ("torch", "numpy", "pandas", "mlflow", "sklearn", "matplotlib", "PIL", "pyarrow", "ruamel"):
        assert f"'{heavy}'" not in modules


def test_reading_params_imports_nothing_heavy() -> None:
    code = "import sys, pipeline.launch as l; l.load(); print(sorted({n.partition('.')[0] for n in sys.modules}))"
    modules = python("-c", code, check=True).stdout
    for heavy in ("torch", "numpy", "pandas", "mlflow", "sklearn", "matplotlib", "PIL", "pyarrow"):
        assert f"'{heavy}'" not in modules


def test_no_command_shows_the_help_and_is_a_usage_error(run: Run) -> None:
    code, out, err = run()
    assert (code, out) == (2, "")
    assert err.startswith("Usage:")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["trian", "digits"], "error: no such command 'trian'; did you mean 'train'? choices: augment, check-"),
        (["train"], "error: Missing argument 'name'"),
        (["train", "digits", "icons"], "error: Got unexpected extra argument"),
        (["--bogus"], "error: No such option: --bogus"),
        (
            ["train", "dogits"],
            "error: params.yaml: no 'dogits' in runs or generators; did you mean 'digits'? choices: d",
        ),
    ],
)
def test_misuse_is_one_line_and_exit_code_2(
    run: Run, stage: Callable[..., None], arguments: list[str], what: str
) -> None:
    stage(lambda *_: pytest.fail("the stage ran"))
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(what)
    assert err.count("\n") == 1


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (PipelineError("a.jpg#3 bbox: no area; fix: remove it"), 1, "error: a.jpg#3 bbox: no area; fix: remove it"),
        (PipelineError("first\n  second"), 1, "error: first second"),
        (
            ValueError("odd\nthing"),
            1,
            "error: ValueError: odd thing; this is a bug; rerun with --debug for the traceback",
        ),
        (OSError(28, "No space left on device", "data/x"), 1, "error: data/x: No space left on device; fix: free"),
        (KeyboardInterrupt(), 130, "error: interrupted"),
    ],
)
def test_a_stages_error_is_one_line(
    run: Run, stage: Callable[..., None], error: BaseException, code: int, line: str
) -> None:
    stage(failing(error))
    got, out, err = run("train", "digits")
    assert (got, out) == (code, "")
    assert err.startswith(line)
    assert err.count("\n") == 1
    assert not paths.LEDGER.exists()


@pytest.mark.parametrize("arguments", [["--debug", "train", "digits"], ["train", "digits", "--debug"]])
def test_debug_adds_the_traceback(run: Run, stage: Callable[..., None], arguments: list[str]) -> None:
    stage(failing(PipelineError("no area")))
    code, _, err = run(*arguments)
    assert code == 1
    assert err.startswith("Traceback")
    assert err.splitlines()[-1] == "error: no area"


def test_a_closed_pipe_is_quiet() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [sys.executable, "-m", "pipeline", "--help"], cwd=PROJECT, stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert process.stderr == ""


def test_a_stage_gets_its_environment_before_it_runs(run: Run, stage: Callable[..., None]) -> None:
    seen: dict[str, str] = {}
    stage(lambda *_: seen.update(launch.os.environ))
    assert run("train", "digits")[0] == 0
    assert {seen[f"{library}_NUM_THREADS"] for library in ("OMP", "MKL", "OPENBLAS")} == {"3"}
    assert seen["OMP_WAIT_POLICY"] == "PASSIVE"
    assert seen["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert seen["NO_ALBUMENTATIONS_UPDATE"] == "1"


def test_each_finished_stage_adds_its_cost_to_the_ledger(run: Run, stage: Callable[..., None]) -> None:
    stage(lambda *_: time.sleep(0.05))
    assert run("train", "icons")[0] == run("report")[0] == 0
    first, second = (json.loads(line) for line in paths.LEDGER.read_text(encoding="utf-8").splitlines())
    assert (first["command"], first["name"]) == ("train", "icons")
    assert (second["command"], second["name"]) == ("report", None)
    assert 0.05 <= first["seconds"] < 5
    # the second stage ran in the same process
    assert 0 < first["peak_memory_mb"] <= second["peak_memory_mb"] == pytest.approx(peak_mb(), abs=20)


def test_a_terminated_stage_leaves_through_its_finally_blocks(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time\nfrom pipeline.launch import _stop\nsignal.signal(signal.SIGTERM, _stop)\n"
        "try:\n    print('ready', flush=True)\n    time.sleep(30)\nfinally:\n    print('cleaned', flush=True)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=10)
    assert (out, process.returncode) == ("cleaned\n", 143)


@pytest.mark.slow
def test_help_answers_within_three_times_importing_typer() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    ours, bare = [], []
    for _ in range(7):  # in turns, so that a busy machine slows both
        for arguments, times in ((["-m", "pipeline", "--help"], ours), (["-c", "import typer"], bare)):
            started = time.perf_counter()
            python(*arguments, env=environment, check=True)
            times.append(time.perf_counter() - started)
    assert min(ours) <= 3 * min(bare)
