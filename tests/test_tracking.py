import json
import os
import socket
import threading
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline import lock, tracking
from pipeline.errors import PipelineError
from pipeline.params import Params
from pipeline.reporting import page
from pipeline.reporting.contents import read_contents
from pipeline.stages import track
from pipeline.tracking import Entry, legal_names, shortened, sync, without_credentials

pytestmark = pytest.mark.filterwarnings("ignore:::mlflow", "ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    """What `prepare` sets goes after the test; a run id from elsewhere must not matter."""
    for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "DO_NOT_TRACK"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123456789abcdef0123456789abcdef")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> bytes:
    """A database with its tables, made once: that takes most of the time of a first sync."""
    folder = tmp_path_factory.mktemp("database")
    sync([], uri=f"sqlite:///{folder}/mlflow.db", experiment="other", timeout=2)
    return (folder / "mlflow.db").read_bytes()


@pytest.fixture
def uri(tmp_path, empty_database) -> str:
    (tmp_path / "mlflow.db").write_bytes(empty_database)
    return f"sqlite:///{tmp_path}/mlflow.db"


def runs_in(uri: str, condition: str = "") -> list:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("pipeline")
    return list(client.search_runs([experiment.experiment_id], filter_string=condition, max_results=1000))


def entry(stage: str, name: str, digest: str, **more) -> Entry:
    return Entry(stage=stage, name=name, digest=digest, **more)


def test_a_state_is_a_parent_with_a_child_per_stage(uri, tmp_path):
    picture = tmp_path / "pictures" / "confusion.png"
    picture.parent.mkdir()
    picture.write_bytes(b"png")
    train = entry(
        "train", "net", "d1", params={"runs.net.training.lr": 0.01}, curves={"loss": [(1, 2.0), (2, 1.0)]}, seconds=3.0
    )
    evaluate = entry("evaluate", "net", "d2", metrics={"mAP@0.5": 0.5, "undefined": None}, pictures=[picture.parent])
    done = sync(
        [train, evaluate], uri=uri, experiment="pipeline", timeout=2, commit="abc", summary={"net/map": 0.25, "x": None}
    )
    assert (done.written, done.known) == (3, 0)
    (parent,) = runs_in(uri, "tags.kind = 'state'")
    assert parent.data.metrics == {"net/map": 0.25}
    assert json.loads(parent.data.tags["stages.0"]) == {"train@net": "d1", "evaluate@net": "d2"}
    trained, evaluated = (runs_in(uri, f"tags.stage = '{stage}'")[0] for stage in ("train", "evaluate"))
    assert {run.info.status for run in (parent, trained, evaluated)} == {"FINISHED"}
    assert trained.data.params == {"runs.net.training.lr": "0.01"}
    assert trained.info.end_time - trained.info.start_time == 3000
    assert evaluated.data.metrics == {"mAP_0.5": 0.5}
    for run in (trained, evaluated):
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["mlflow.source.git.commit"] == "abc"
        assert run.data.tags["name"] == "net"
    from mlflow.tracking import MlflowClient

    history = MlflowClient(tracking_uri=uri).get_metric_history(trained.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 2.0), (2, 1.0)]
    assert [path.name for path in (tmp_path / "mlartifacts").rglob("*.png")] == ["confusion.png"]


def test_what_the_page_says_to_search_for_finds_the_stages_of_a_run(uri, job: Params):
    one = read_contents(job).kinds["detection"][0]
    entries = [entry("train", one.name, "a1"), entry("evaluate", one.name, "a2"), entry("train", f"{one.name}_2", "a3")]
    sync(entries, uri=uri, experiment="pipeline", timeout=2, commit=None)
    assert sorted(run.info.run_name for run in runs_in(uri, page.in_mlflow(one))) == [
        f"evaluate@{one.name}",
        f"train@{one.name}",
    ]


def test_a_second_sync_adds_nothing_and_a_new_state_only_what_changed(uri):
    first, second = entry("train", "a", "d1"), entry("train", "b", "d2")
    sync([first, second], uri=uri, experiment="pipeline", timeout=2)
    again = sync([first, second], uri=uri, experiment="pipeline", timeout=2)
    assert (again.written, again.known) == (0, 2)
    assert len(runs_in(uri)) == 3
    changed = sync([first, entry("train", "b", "d3")], uri=uri, experiment="pipeline", timeout=2)
    assert (changed.written, changed.known) == (2, 1)
    assert len(runs_in(uri)) == 5
    back = sync([second, first], uri=uri, experiment="pipeline", timeout=2)
    assert (back.written, back.known) == (0, 2)


def test_a_killed_sync_is_finished_by_the_next_without_a_second_point(uri, monkeypatch):
    curve = {"loss": [(1, 2.0), (2, 1.0)]}
    entries = [entry("train", "a", "d1", curves=curve), entry("train", "b", "d2", curves=curve, params={"lr": 1})]
    from mlflow.tracking import MlflowClient

    end = MlflowClient.set_terminated

    def killed_at_b(client, run_id, *args, **kwargs):
        if client.get_run(run_id).data.tags.get("name") == "b":
            raise KeyboardInterrupt
        end(client, run_id, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "set_terminated", killed_at_b)
    with pytest.raises(KeyboardInterrupt):
        sync(entries, uri=uri, experiment="pipeline", timeout=2)
    assert sorted(run.info.status for run in runs_in(uri)) == ["FINISHED", "RUNNING", "RUNNING"]
    monkeypatch.setattr(MlflowClient, "set_terminated", end)
    sync(entries, uri=uri, experiment="pipeline", timeout=2)
    assert [run.info.status for run in runs_in(uri)] == ["FINISHED"] * 3
    (run,) = runs_in(uri, "tags.name = 'b'")
    assert len(MlflowClient(tracking_uri=uri).get_metric_history(run.info.run_id, "loss")) == 2


def test_names_are_mapped_and_stay_apart():
    names = ["mAP@0.5", "mAP_0.5", "a<b", "x" * 300, "../../etc", "/root", "fine/name-1.2"]
    legal = legal_names(dict.fromkeys(names))
    assert legal["mAP@0.5"] == "mAP_0.5"
    assert legal["mAP_0.5"] == "mAP_0.5_2"
    assert legal["a<b"] == "a_b"
    assert legal["../../etc"] == "_/_/etc"
    assert legal["/root"] == "_/root"
    assert legal["fine/name-1.2"] == "fine/name-1.2"
    assert len(legal["x" * 300]) <= 250
    assert len(set(legal.values())) == len(names)
    from mlflow.utils.validation import _validate_metric_name

    for name in legal.values():
        _validate_metric_name(name)


def test_a_long_value_is_cut_and_says_so(uri):
    text, is_cut = shortened("y" * 7000)
    assert is_cut
    assert len(text) == tracking.MAX_PARAM
    assert text.endswith("... (cut, 7000 characters)")
    sync(
        [entry("download", "a", "d1", params={"long": "y" * 7000, "short": 1})],
        uri=uri,
        experiment="pipeline",
        timeout=2,
    )
    (run,) = runs_in(uri, "tags.name = 'a'")
    assert run.data.params == {"long": text, "short": "1"}
    assert run.data.tags["cut_params"] == "long"


def test_what_is_not_finite_is_left_out(uri):
    sync(
        [entry("train", "a", "d1", metrics={"good": 1.5, "nan": float("nan"), "inf": float("inf"), "none": None})],
        uri=uri,
        experiment="pipeline",
        timeout=2,
    )
    assert runs_in(uri, "tags.name = 'a'")[0].data.metrics == {"good": 1.5}


def test_credentials_never_show():
    uri = "postgresql://me:s%40cret@host:5432/db?sslpassword=hidden"
    text = without_credentials(f"cannot reach {uri}\n as me:s@cret with s%40cret and sslpassword=hidden", uri)
    assert "cret" not in text
    assert "hidden" not in text
    assert "host:5432/db" in text
    assert "\n" not in text


def with_lock(job: Params, uri: str, **more) -> Params:
    """The job with a dvc.lock beside it and another tracking server."""
    stages = {
        "train@unet_scenes": {
            "cmd": "python -m pipeline train unet_scenes",
            "deps": [{"path": "data/raw/openmoji_scenes", "hash": "md5", "md5": "1.dir"}],
            "params": {"params.yaml": {"runs.unet_scenes.training": {"lr": 0.001, "online": {"flip": 0.5}}}},
            "outs": [{"path": "reports/runs/unet_scenes/training.csv", "hash": "md5", "md5": "2"}],
        },
        "evaluate@unet_scenes": {
            "cmd": "python -m pipeline evaluate unet_scenes",
            "outs": [
                {"path": "reports/runs/unet_scenes/metrics.json", "md5": "3"},
                {"path": "reports/runs/unet_scenes/pictures", "md5": "4.dir"},
            ],
        },
        "train_generator@vae_digits": {"cmd": "python -m pipeline train vae_digits", "outs": []},
        "train@gone_from_params": {"cmd": "python -m pipeline train gone_from_params"},
        "download@digits": {"cmd": "python -m pipeline download digits", "outs": [{"path": "reports/data/digits"}]},
        "report": {"cmd": "python -m pipeline report", "outs": [{"path": "reports/summary.md", "md5": "5"}]},
        "track": {"cmd": "python -m pipeline track"},
    }
    with Path("dvc.lock").open("w") as file:
        YAML(typ="safe").dump({"schema": "2.0", "stages": stages}, file)
    return job.model_copy(update={"tracking": job.tracking.model_copy(update={"uri": uri, **more})})


def test_the_stage_reads_lock_reports_and_ledger(job: Params, uri, capsys):
    Path("data").mkdir()
    lines = [
        {"command": "train", "name": "unet_scenes", "seconds": 99, "peak_memory_mb": 1},
        {"command": "train", "name": "unet_scenes", "seconds": 12.5, "peak_memory_mb": 800.5},
    ]
    Path("data/ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"comm')
    params = with_lock(job, uri)
    track.run(params)
    assert "MLflow: 6 new, 0 known" in capsys.readouterr().err
    (trained,) = runs_in(uri, "tags.stage = 'train'")
    assert trained.data.metrics["duration_seconds"] == 12.5
    assert trained.data.metrics["peak_memory_mb"] == 800.5
    assert trained.data.metrics["val_score"] == pytest.approx(1 - 0.9 / 8, abs=1e-6)
    assert trained.data.params == {
        "runs.unet_scenes.training.lr": "0.001",
        "runs.unet_scenes.training.online.flip": "0.5",
    }
    (evaluated,) = runs_in(uri, "tags.stage = 'evaluate'")
    assert evaluated.data.metrics["miou"] == 0.382
    (parent,) = runs_in(uri, "tags.kind = 'state'")
    assert parent.data.metrics["unet_scenes/miou"] == 0.382
    pictures = {path.name for path in Path("mlartifacts").rglob("*.png")}
    assert {"predictions.png", "confusion.png", "preview_boxes.png"} <= pictures
    track.run(params)
    assert "MLflow: 0 new, 5 known" in capsys.readouterr().err
    assert len(runs_in(uri)) == 6


def test_a_group_that_tracking_does_not_know_is_told(job: Params, uri):
    params = with_lock(job, uri)
    lock.write(Path("dvc.lock"), {**lock.read(), "caption@digits": {"cmd": "python -m pipeline caption digits"}})
    with pytest.raises(PipelineError, match=r"^dvc\.lock caption@digits: of no section .*; fix: "):
        track.run(params)


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_a_dead_server_costs_a_warning_and_seconds(job: Params, capfd):
    params = with_lock(job, f"http://me:s3cret@127.0.0.1:{closed_port()}")
    started = time.monotonic()
    track.run(params)
    assert time.monotonic() - started < 15
    out, err = capfd.readouterr()
    assert "s3cret" not in out + err
    assert err.startswith("warning: params.yaml tracking.uri: ")
    assert len(err.splitlines()) == 1
    with pytest.raises(PipelineError, match="fix: python -m pipeline track") as caught:
        track.run(with_lock(job, params.tracking.uri, required=True))
    assert "s3cret" not in str(caught.value)


def test_a_silent_server_costs_seconds(job: Params, capfd):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        kept = []
        threading.Thread(target=lambda: kept.extend(listener.accept() for _ in range(2)), daemon=True).start()
        started = time.monotonic()
        track.run(with_lock(job, f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=1))
        assert time.monotonic() - started < 15
        for connection, _ in kept:
            connection.close()
    assert capfd.readouterr().err.startswith("warning: ")


def test_a_corrupt_database_is_a_warning_and_stays_as_it_is(job: Params, tmp_path, capfd):
    database = tmp_path / "broken.db"
    database.write_bytes(b"not a database" * 100)
    track.run(with_lock(job, f"sqlite:///{database}"))
    err = capfd.readouterr().err
    assert err.startswith("warning: ")
    assert len(err.splitlines()) == 1
    assert database.read_bytes() == b"not a database" * 100


@pytest.mark.parametrize("text", ["", "<<<<<<< ours\nstages:\n=======\n", "stages: 3\n"])
def test_a_broken_lock_is_one_line(job: Params, text):
    Path("dvc.lock").write_text(text)
    with pytest.raises(PipelineError, match=r"^dvc\.lock: .*; fix: ") as caught:
        track.run(job)
    assert "\n" not in str(caught.value)
