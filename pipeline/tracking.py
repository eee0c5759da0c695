"""Brings MLflow up to date with the files of the pipeline; the only file that imports mlflow.

A parent run stands for one state of the pipeline (the digest of its stages in dvc.lock), a child for one stage and
name (the digest of that lock entry). A child that any parent has already is not written again: a new state is a new
parent with the changed children, and its `stages.N` tags list the digests of all of them. Everything is read from
files after the fact and written in batches, so a sync may be killed at any point and run again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

MAX_PARAM = 500  # characters of a parameter's value: MLflow cuts at 6,000 without a word, and its table at far fewer
MAX_NAME = 250  # characters of a parameter's or metric's name
MAX_TAG = 4500  # characters of one tag's value; servers differ, 5,000 is the least
METRICS_PER_BATCH, PARAMS_PER_BATCH = 899, 100  # with one tag the 1,000 that MLflow takes at once
FINISHED = "FINISHED"


@dataclass(frozen=True)
class Entry:
    """What one child run says.

    Attributes:
        stage, name: such as train and unet_scenes; a stage without names has its own as name.
        digest: of the lock entry, hexadecimal.
        params: dotted name -> value.
        metrics: name -> number.
        curves: name -> (step, number) points.
        pictures: folders or files that become artifacts.
        seconds: how long the stage took, None where the ledger does not know.
    """

    stage: str
    name: str
    digest: str
    params: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float | None] = field(default_factory=dict)
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    pictures: list[Path] = field(default_factory=list)
    seconds: float | None = None

    @property
    def title(self) -> str:
        """The stage's name in DVC."""
        return self.stage if self.stage == self.name else f"{self.stage}@{self.name}"


@dataclass(frozen=True)
class Synced:
    """How many runs a sync wrote, parents included, and how many children were there already."""

    written: int
    known: int


def digest(content: Any) -> str:
    """A short digest of JSON-like content, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def sync(
    entries: list[Entry],
    *,
    uri: str,
    experiment: str,
    timeout: float,
    commit: str | None = None,
    summary: Mapping[str, float | None] | None = None,
) -> Synced:
    """Writes the children that MLflow lacks, under a parent for this state.

    Args:
        entries: all stages of the present state.
        uri: a server, or `sqlite:///FILE`, created when absent.
        experiment: its name, created when absent.
        timeout: seconds that one answer of a server may take.
        commit: tag of all runs that are written.
        summary: the main metrics of the state, for the parent.

    Raises:
        Exception: whatever MLflow or the database raises; the caller decides what that costs. Its text may hold
            credentials: pass it through `without_credentials`.
    """
    prepare(timeout)
    with _lock(uri), _quiet():
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        experiment_id = _experiment(client, experiment, uri)
        state = digest(sorted((entry.title, entry.digest) for entry in entries))
        parent = _find(client, experiment_id, f"tags.kind = 'state' and tags.digest = '{state}'")
        if parent is not None and parent.info.status == FINISHED:
            return Synced(written=0, known=len(entries))
        children = _children(client, experiment_id)
        commit_tag = {"mlflow.source.git.commit": commit} if commit else {}
        now = int(time.time() * 1000)
        if parent is None:
            listed = json.dumps({entry.title: entry.digest for entry in entries}, separators=(",", ":"))
            parts = [listed[start : start + MAX_TAG] for start in range(0, len(listed), MAX_TAG)]
            tags = {"kind": "state", "digest": state, **commit_tag}
            tags |= {f"stages.{index}": part for index, part in enumerate(parts)}
            parent = client.create_run(experiment_id, start_time=now, run_name=f"state {state[:8]}", tags=tags)
        written = 1
        for entry in entries:
            child = children.get(entry.digest)
            if child is not None and child.info.status == FINISHED:
                continue
            if child is None:
                tags = {
                    "kind": "stage", "stage": entry.stage, "name": entry.name, "digest": entry.digest,
                    "mlflow.parentRunId": parent.info.run_id, **commit_tag,
                }  # fmt: skip
                start = now - round(1000 * (entry.seconds or 0))
                child = client.create_run(experiment_id, start_time=start, run_name=entry.title, tags=tags)
            _write(client, child, entry)
            client.set_terminated(child.info.run_id, FINISHED, end_time=now)
            written += 1
        _log(client, parent, {}, {name: [(0, value)] for name, value in (summary or {}).items()})
        client.set_terminated(parent.info.run_id, FINISHED, end_time=int(time.time() * 1000))
        return Synced(written=written, known=len(entries) - written + 1)


def prepare(timeout: float) -> None:
    """Sets what MLflow reads when it is imported: no calls home, no long waits, no run of somebody else's."""
    os.environ.update(
        {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # seven by default: a dead server would cost minutes
            "MLFLOW_HTTP_REQUEST_TIMEOUT": str(max(1, round(timeout))),
            "GIT_PYTHON_REFRESH": "quiet",
        }
    )
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        os.environ.pop(name, None)  # a run id there overrides the parent that is named here (mlflow#15713)


def _write(client: MlflowClient, run: Any, entry: Entry) -> None:
    points = {name: [(0, value)] for name, value in entry.metrics.items()} | entry.curves
    _log(client, run, entry.params, points)
    for place in entry.pictures:
        if place.is_dir():
            client.log_artifacts(run.info.run_id, str(place), "pictures")
        elif place.is_file():
            client.log_artifact(run.info.run_id, str(place), "pictures")


def _log(
    client: MlflowClient, run: Any, params: Mapping[str, Any], points: Mapping[str, list[tuple[int, Any]]]
) -> None:
    """Logs in batches; times are the run's start, so that logging again after a kill adds no second point."""
    from mlflow.entities import Metric, Param, RunTag

    run_id, time_ms = run.info.run_id, run.info.start_time
    names = legal_names(points)
    metrics = [
        Metric(names[name], float(value), time_ms, step)
        for name, series in points.items()
        for step, value in series
        if value is not None and math.isfinite(value)
    ]
    shown = {name: shortened(value) for name, value in params.items()}
    cut = sorted(name for name, (_, is_cut) in shown.items() if is_cut)
    keys = legal_names(params)
    entries = [Param(keys[name], text) for name, (text, _) in shown.items()]
    tags = [RunTag("cut_params", ", ".join(cut)[:MAX_TAG])] if cut else []
    while metrics or entries or tags:
        client.log_batch(run_id, metrics[:METRICS_PER_BATCH], entries[:PARAMS_PER_BATCH], tags)
        metrics, entries, tags = metrics[METRICS_PER_BATCH:], entries[PARAMS_PER_BATCH:], []


def shortened(value: Any) -> tuple[str, bool]:
    """A parameter's text and whether it was cut; a cut one says how long it was.

    >>> shortened([1, "a"])
    ('[1, "a"]', False)
    """
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)
    if len(text) <= MAX_PARAM:
        return text, False
    note = f" ... (cut, {len(text)} characters)"
    return text[: MAX_PARAM - len(note)] + note, True


def legal_names(names: Mapping[str, Any]) -> dict[str, str]:
    """Names as MLflow takes them: other characters become _, long ones are cut, and no two become one.

    >>> legal_names({"mAP@0.5": 1, "mAP_0.5": 2, "../x": 3})
    {'mAP@0.5': 'mAP_0.5', 'mAP_0.5': 'mAP_0.5_2', '../x': '_/x'}
    """
    legal: dict[str, str] = {}
    for name in names:
        mapped = re.sub(r"[^A-Za-z0-9_\-. :/]", "_", name)
        mapped = "/".join("_" if set(part) <= {"."} else part for part in mapped.split("/"))[: MAX_NAME - 4] or "_"
        unique, count = mapped, 1
        while unique in legal.values():
            count += 1
            unique = f"{mapped}_{count}"
        legal[name] = unique
    return legal


def without_credentials(text: str, uri: str) -> str:
    """`text` with the URI's user, password and query taken out wherever they stand, on one line."""
    parts = urlsplit(uri)
    text = " ".join(text.replace(uri, shown_uri(uri)).split())
    secrets = [parts.query, parts.password or "", f"{parts.username}:" if parts.username and parts.password else ""]
    for secret in secrets:
        for form in {secret, unquote(secret)} - {""}:
            text = text.replace(form, "***")
    return text


def shown_uri(uri: str) -> str:
    """The URI without user, password and query.

    >>> shown_uri("https://me:secret@host:5000/x?password=y")
    'https://host:5000/x'
    """
    parts = urlsplit(uri)
    if "@" not in parts.netloc and not parts.query:
        return uri
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def sqlite_file(uri: str) -> Path | None:
    """The database file of a sqlite URI, None for another kind."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


@contextlib.contextmanager
def _lock(uri: str) -> Iterator[None]:
    """Holds a lock beside a local database: two processes that create one both fail, and two syncs would double."""
    database = sqlite_file(uri)
    if database is None:
        yield
        return
    from filelock import FileLock

    database.absolute().parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock", timeout=120):
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences what mlflow, alembic and urllib3 log and print: their lines may hold the URI, and ours says it all."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "urllib3")]
    before = [(logger, logger.level) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            yield
    finally:
        for logger, level in before:
            logger.setLevel(level)


def _experiment(client: MlflowClient, name: str, uri: str) -> str:
    """The experiment's id; a local one keeps its artifacts in mlartifacts/ beside the database."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage != "active":
            client.restore_experiment(found.experiment_id)
        return found.experiment_id
    database = sqlite_file(uri)
    place = (database.absolute().parent / "mlartifacts").as_uri() if database is not None else None
    return client.create_experiment(name, artifact_location=place)


def _find(client: MlflowClient, experiment_id: str, condition: str) -> Any | None:
    found = client.search_runs([experiment_id], filter_string=condition, max_results=1)
    return found[0] if found else None


def _children(client: MlflowClient, experiment_id: str) -> dict[str, Any]:
    """All children by digest; of two with one digest the finished one counts."""
    children: dict[str, Any] = {}
    token = None
    while True:
        page = client.search_runs(
            [experiment_id], filter_string="tags.kind = 'stage'", max_results=1000, page_token=token
        )
        for run in page:
            known = children.get(run.data.tags["digest"])
            if known is None or known.info.status != FINISHED:
                children[run.data.tags["digest"]] = run
        token = page.token
        if not token:
            return children
