"""dvc.yaml as it is written, and the stages that DVC makes of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.errors import PipelineError
from pipeline.ledger import COMMAND
from pipeline.lint.imports import closure

if TYPE_CHECKING:
    from dvc.stage import Stage

FILE = Path("dvc.yaml")


class Group(NamedTuple):
    """A group of stages, or one stage, as dvc.yaml has it.

    Attributes:
        name: of the group.
        mapping: of params.yaml over which it goes, or None.
        body: cmd, deps, params, outs, ...
    """

    name: str
    mapping: str | None
    body: Mapping[str, Any]

    @property
    def verb(self) -> str:
        """The command that its stages run."""
        return str(self.body.get("cmd", "")).removeprefix(COMMAND).split(" ")[0]

    @property
    def outs(self) -> list[str]:
        """Its outputs, metrics and plots, before interpolation."""
        listed = [out for key in ("outs", "metrics", "plots") for out in self.body.get(key) or []]
        return [str(next(iter(out))) if isinstance(out, dict) else str(out) for out in listed]

    def interpolates(self, key: str) -> bool:
        """Whether a key of the entry stands in its deps, outs or params, so that DVC sees it change."""
        text = " ".join([*map(str, self.body.get("deps") or []), *map(str, self.body.get("params") or []), *self.outs])
        return f"${{item.{key}}}" in text


class Graph(NamedTuple):
    """All of dvc.yaml: its groups, params.yaml as it is, and DVC's stages by address."""

    groups: dict[str, Group]
    params: Mapping[str, Any]
    stages: Mapping[str, Stage]

    def group_of(self, address: str) -> Group:
        """The group that a stage comes from."""
        return self.groups[address.partition("@")[0]]

    def item(self, address: str) -> Any:
        """The stage's entry in params.yaml, or None."""
        mapping = self.group_of(address).mapping
        return self.params[mapping][address.partition("@")[2]] if mapping else None

    def code(self, address: str) -> set[str]:
        """The files of the package that a stage runs."""
        return self.code_of(self.group_of(address).verb, self.item(address))

    @staticmethod
    def code_of(verb: str, item: Any) -> set[str]:
        """The files of the package that a command runs for an entry; without one, no plug-ins."""
        return closure(f"pipeline/stages/{verb}.py", "pipeline/launch.py", item=item)


def read() -> Graph:
    """The graph of the project in the working folder.

    Raises:
        PipelineError: dvc.yaml or params.yaml are not what DVC takes.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    from pipeline.document import Document
    from pipeline.scheduling.graph import one_line

    content, params = Document(FILE).content, Document(Path("params.yaml")).content
    try:
        with Repo() as repo:
            stages = {stage.addressing: stage for stage in repo.index.stages}
    except DvcException as error:
        raise PipelineError(f"{FILE}: {one_line(error)}; fix: see dvc repro --dry") from None
    groups = {}
    for name, group in content["stages"].items():
        mapping = re.fullmatch(r"\$\{(\w+)\}", str(group.get("foreach", "")))
        groups[name] = Group(name, mapping[1] if mapping else None, group.get("do", group))
    return Graph(groups, params, stages)


def expanded_names(content: Mapping[str, Any], params: Mapping[str, Any]) -> Iterator[str]:
    """The names of all stages, one for each entry, as often as they occur.

    Args:
        content: `stages` of dvc.yaml.
        params: params.yaml, over whose mappings `foreach` and `matrix` may go.
    """
    for name, group in content.items():
        if "foreach" in group:
            yield from (f"{name}@{key}" for key in _keys(group["foreach"], params))
        elif "matrix" in group:
            names = [""]
            for values in group["matrix"].values():
                names = [f"{before}-{key}" if before else key for before in names for key in _keys(values, params)]
            yield from (f"{name}@{each}" for each in names)
        else:
            yield name


def _keys(values: Any, params: Mapping[str, Any]) -> list[str]:
    if isinstance(values, str):
        values = params.get(values.strip("${}")) or []
    return [str(value) for value in values]


def dependencies(stage: Stage) -> set[str]:
    """The files and folders that a stage depends on."""
    return {str(dep.def_path) for dep in stage.deps if not hasattr(dep, "params")}
