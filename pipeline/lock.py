"""Merges dvc.lock as git's merge driver: stage by stage, so that branches which changed different runs meet.

Where both sides changed one stage in different ways, neither result is that of the merged inputs: its entry is
dropped, and the next `dvc repro` runs that stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import paths
from pipeline.errors import PipelineError


def merge(
    base: Mapping[str, Any], ours: Mapping[str, Any], theirs: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The three-way merge of mappings from stage names to entries.

    Returns:
        The merged entries, in the order of ours with what only theirs has at the end, and the names of dropped ones.
    """
    merged, dropped = {}, []
    for name in dict.fromkeys([*ours, *theirs]):
        old, one, other = base.get(name), ours.get(name), theirs.get(name)
        if one == other or other == old:
            kept = one
        elif one == old:
            kept = other
        else:
            kept = None
            dropped.append(name)
        if kept is not None:
            merged[name] = kept
    return merged, dropped


def merge_files(base: Path, ours: Path, theirs: Path) -> list[str]:
    """Merges three versions of dvc.lock into `ours`, as git asks of a driver (%O %A %B).

    Returns:
        The stages that `dvc repro` has to run anew because both sides changed them.

    Raises:
        PipelineError: a version is not a lock file; `ours` stays as it was.
    """
    from ruamel.yaml import YAML

    old, one, other = (_stages(path) for path in (base, ours, theirs))
    merged, dropped = merge(old, one, other)
    yaml = YAML()
    yaml.default_flow_style = False
    with paths.written_whole(ours) as temporary, temporary.open("w", encoding="utf-8") as file:
        yaml.dump({"schema": "2.0", "stages": merged}, file)
    return dropped


def _stages(path: Path) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise PipelineError(
            f"{path}: not readable as dvc.lock ({str(error).splitlines()[0]}); fix: dvc repro"
        ) from None
    content = {} if content is None else content  # both sides added the file
    stages = content.get("stages", {}) if isinstance(content, dict) else None
    if not isinstance(stages, dict):
        raise PipelineError(f"{path}: not a lock file; fix: git checkout it from one side, then dvc repro")
    return stages
