"""dvc.lock as a whole: read, written, and merged as git's merge driver does it.

It is merged stage by stage, so that branches which changed different runs meet. Where both sides changed one stage in
different ways, neither result is that of the merged inputs: its entry is dropped, and the next `dvc repro` runs that
stage.
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
    old, one, other = (_version(path) for path in (base, ours, theirs))
    merged, dropped = merge(old, one, other)
    write(ours, merged)
    return dropped


def _version(path: Path) -> dict[str, Any]:
    is_empty = path.is_file() and not path.stat().st_size  # as the base is where both sides added the file
    return {} if is_empty else read(path)


def read(path: Path = paths.LOCK) -> dict[str, dict[str, Any]]:
    """`stages` of a file.

    Raises:
        PipelineError: it cannot be read, or is no lock file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = getattr(error, "strerror", None) or str(error)
        raise PipelineError(f"{path}: not readable ({what}); fix: git checkout {paths.LOCK}, or dvc repro") from None
    return stages(text, str(path))


def stages(text: str, place: str) -> dict[str, dict[str, Any]]:
    """The entries of a lock file by stage.

    Args:
        text: of the file.
        place: how a message names it.

    Raises:
        PipelineError: merge markers, an empty file, or something else than a lock file.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if any(line.startswith(("<<<<<<<", ">>>>>>>")) for line in text.splitlines()):
        raise PipelineError(f"{place}: a merge marker; fix: git checkout --ours {paths.LOCK}, then dvc repro")
    try:
        found = YAML(typ="safe").load(text)
    except (YAMLError, ValueError, RecursionError) as error:
        raise PipelineError(
            f"{place}: not readable ({str(error).splitlines()[0]}); fix: git checkout {paths.LOCK}, or dvc repro"
        ) from None
    entries = found.get("stages") if isinstance(found, dict) else None
    if not isinstance(entries, dict):
        raise PipelineError(
            f"{place}: {'empty' if found is None else 'not a lock file'}; fix: git checkout {paths.LOCK}, or dvc repro"
        )
    for name, entry in entries.items():
        if not isinstance(entry, dict):
            raise PipelineError(
                f"{place} {name}: not a stage ({entry!r}); fix: git checkout {paths.LOCK}, or dvc repro"
            )
    return {str(name): entry for name, entry in entries.items()}


def write(path: Path, entries: Mapping[str, Any]) -> None:
    """Writes a lock file of these entries, as DVC writes it, whole or not at all."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.default_flow_style = False
    with paths.written_whole(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        yaml.dump({"schema": "2.0", "stages": dict(entries)}, file)
