"""DVC's expanded graph: what there is to run, in DVC's own order, and what depends on what."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import Stage


class Graph(NamedTuple):
    """The stages that a repro of some targets looks at.

    Attributes:
        repo: DVC's project; its lock is free.
        stages: by address, in the order in which `dvc repro` would run them.
        upstream: of each address those that must be done before, among `stages`.
    """

    repo: Repo
    stages: Mapping[str, Stage]
    upstream: Mapping[str, frozenset[str]]


def read(targets: Sequence[str] = ()) -> Graph:
    """The graph of the project in the working folder, or the part of it that the targets need.

    Args:
        targets: as `dvc repro` takes them: stages, groups of stages, outputs; none: all of dvc.yaml.

    Raises:
        PipelineError: no project, a dvc.yaml that DVC refuses, or an unknown target.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro

    try:
        repo = Repo()
        graph = get_active_graph(repo.index.graph)
        order = plan_repro(graph, collect_stages(repo, list(targets) or ["dvc.yaml"]))
    except DvcException as error:
        raise PipelineError(f"dvc.yaml: {one_line(error)}; fix: see dvc repro --dry") from None
    stages = {stage.addressing: stage for stage in order}
    upstream = {name: frozenset(each.addressing for each in graph.successors(stage)) for name, stage in stages.items()}
    return Graph(repo, stages, {name: above & stages.keys() for name, above in upstream.items()})


def one_line(error: BaseException) -> str:
    """An error of DVC's in one line, with its causes."""
    said = [str(error)]
    while (cause := error.__cause__) is not None:
        said.append(str(cause))
        error = cause
    return " ".join(": ".join(part for part in said if part).split()) or type(error).__name__


def priorities(upstream: Mapping[str, Collection[str]], seconds: Mapping[str, float]) -> dict[str, float]:
    """The length of the longest path that starts at each stage, itself included.

    Args:
        upstream: of each stage those before it, in an order in which they can run.
        seconds: what each takes.
    """
    below: dict[str, float] = dict.fromkeys(upstream, 0.0)
    lengths = {}
    for name in reversed(list(upstream)):
        lengths[name] = seconds[name] + below[name]
        for above in upstream[name]:
            below[above] = max(below[above], lengths[name])
    return lengths
