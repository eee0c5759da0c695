"""The checks of `pipeline lint`: each yields one line for each fault."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import PurePosixPath
from typing import Any

from pipeline import paths
from pipeline.document import Document
from pipeline.lint import reads as params_reads
from pipeline.lint import writes as places
from pipeline.lint.graph import FILE, Graph, Group, dependencies, expanded_names
from pipeline.lint.imports import NO_INFLUENCE, PROJECT, closure, is_covered
from pipeline.lint.reads import Read
from pipeline.params import Params, plug_ins

# What a stage reads of params.yaml and yet need not declare.
KNOWN_OTHERWISE = {
    ("search", "Run.model"): "its entry has the same, which it depends on",
    ("search", "Run.inputs"): "its entry has the same, which it depends on",
    ("predict", "Run.training"): "seeds say which checkpoints there are, and it depends on them",
    ("corrupt", "Run.training"): "seeds say which checkpoints there are, and it depends on them",
    ("evaluate", "Run.training"): "seeds say which predictions there are, and it depends on them",
    ("evaluate", "Run.model"): "says the task, and its predictions are of that model",
    ("evaluate", "Generator.model"): "says the task, and its samples are of that model",
}

# Where the files lie that the entries of a mapping name, whose code a graph of all of them would run.
PLUG_INS = {"datasets": "data/datasets", "visualisations": "visualise"}

# What a stage's code could write, and why it does not.
NEVER_WRITTEN = {"reports/generators/*/gallery.json": "samples have no truth beside which to show them"}


def imports(graph: Graph) -> Iterator[str]:
    """Code that a stage runs and does not depend on."""
    missing: dict[str, set[str]] = defaultdict(set)
    for address, stage in graph.stages.items():
        have = dependencies(stage)
        code = graph.code(address) - set(NO_INFLUENCE)
        missing[graph.group_of(address).name] |= {file for file in code if not is_covered(file, have)}
    for group in graph.groups.values():
        if not any(graph.group_of(address) == group for address in graph.stages):  # its mapping is empty
            code = graph.code_of(group.verb, item=None) - set(NO_INFLUENCE)
            have = set(map(str, group.body.get("deps") or []))
            missing[group.name] |= {file for file in code if not is_covered(file, have)}
    for name, files in missing.items():
        for file in sorted(files):
            yield f"{FILE} {name}.deps: its code runs {file}; fix: add it"


def unused_code(graph: Graph) -> Iterator[str]:
    """Code that a group depends on and that none of its stages runs, or that is not there."""
    runs: dict[str, set[str]] = defaultdict(set)
    has: dict[str, set[str]] = defaultdict(set)
    for address, stage in graph.stages.items():
        group = graph.group_of(address)
        runs[group.name] |= graph.code(address)
        has[group.name] |= {dep for dep in dependencies(stage) if dep.startswith("pipeline/")}
        if group.mapping in PLUG_INS:  # another params.yaml needs more of the group's dependencies
            folder = PLUG_INS[group.mapping]
            runs[group.name] |= closure(*(f"pipeline/{folder}/{name}.py" for name in plug_ins(folder)), item=None)
    for name, deps in has.items():
        for dep in sorted(deps):
            if not (PROJECT / dep).exists():
                yield f"{FILE} {name}.deps: no {dep}; fix: remove or mend it"
            elif (PROJECT / dep).is_file() and dep not in runs[name]:
                yield f"{FILE} {name}.deps: its code never runs {dep}; fix: remove it"


def params(graph: Graph) -> Iterator[str]:
    """Params that a group's code reads and does not declare, and those that it declares and does not read."""
    classes = params_reads.entry_classes()
    for group in graph.groups.values():
        declared = [_declared(line) for line in group.body.get("params") or [] if isinstance(line, str)]
        found = [read for read in declared if read is not None]
        code = {file for address in graph.stages if graph.group_of(address) == group for file in graph.code(address)}
        code = {file for file in code if file.endswith(".py")} - set(NO_INFLUENCE)
        if not code:  # nothing stands in its mapping
            continue
        own = classes.get(group.mapping or "")
        others = {read.section for read in found}
        read = [each for file in sorted(code) for each in _reads(file)]
        told = set()
        for each in read:
            if each.section not in (own, Params, *others) or not _has_to_be_declared(each, group, own):
                continue
            if not any(part.covers(each) for part in found) and (each.section, each.keys) not in told:
                told.add((each.section, each.keys))
                yield f"{FILE} {group.name}.params: {each.place} reads {_spelt(each, group, classes)}; fix: add it"
        for line in group.body.get("params") or []:
            part = _declared(line) if isinstance(line, str) else None
            if part is not None and part.keys and not any(part.covers(each) or each.covers(part) for each in read):
                yield f"{FILE} {group.name}.params: none of its code reads {line}; fix: remove it"


@cache
def _reads(file: str) -> list[Read]:
    return list(params_reads.reads(file))


def _declared(line: str) -> Read | None:
    """The part of params.yaml that a line of `params:` names, such as `runs.${key}.training`."""
    first, *keys = line.split(".") if "${" not in line else re.sub(r"\$\{[^}]*\}", "*", line).split(".")
    classes = params_reads.entry_classes()
    if first in classes:
        return Read(classes[first], tuple(keys[1:]))
    return Read(Params, (first, *keys)) if first in Params.model_fields else None


def _has_to_be_declared(read: Read, group: Group, own: Any) -> bool:
    key = f"{read.section.__name__}.{read.keys[0]}" if read.keys else ""
    if (group.verb, key) in KNOWN_OTHERWISE:
        return False
    return not (read.section is own and read.keys and group.interpolates(read.keys[0]))


def _spelt(read: Read, group: Group, classes: dict[str, Any]) -> str:
    if read.section is Params:
        return ".".join(read.keys)
    mapping = next(name for name, each in classes.items() if each is read.section)
    return ".".join([mapping, "${key}" if mapping == group.mapping else "*", *read.keys])


def outs(graph: Graph) -> Iterator[str]:
    """Places that a stage's file writes and no group of its verb declares, and outs that its file never names."""
    by_verb: dict[str, list[Group]] = defaultdict(list)
    for group in graph.groups.values():
        by_verb[group.verb].append(group)
    for verb, groups in by_verb.items():
        file = f"pipeline/stages/{verb}.py"
        if not (PROJECT / file).is_file():
            continue
        declared = {(group.name, re.sub(r"\$\{[^}]*\}", places.ANY, out)) for group in groups for out in group.outs}
        for place in sorted(places.writes(file) - NEVER_WRITTEN.keys()):
            if not any(_holds(out, place) for _, out in declared):
                names = " or ".join(group.name for group in groups)
                yield f"{FILE} {names}.outs: {file} writes {place}; fix: add it"
        named = places.mentions(file)
        for name, out in sorted(declared):
            if not any(_holds(place, out) for place in named):
                yield f"{FILE} {name}.outs: {file} never names {out}; fix: remove it"


def _holds(folder: str, place: str) -> bool:
    """Whether a place is the folder or lies in it, where * stands for any one name."""
    above, parts = PurePosixPath(folder).parts, PurePosixPath(place).parts
    pairs = zip(above, parts, strict=False)
    return len(above) <= len(parts) and all(one == other or places.ANY in (one, other) for one, other in pairs)


def names(graph: Graph) -> Iterator[str]:
    """Stages of one name, of which DVC silently drops one, and keys that params dependencies cannot name."""
    counted = Counter(expanded_names(Document(FILE).content["stages"], graph.params))
    for name, count in counted.items():
        if count > 1:
            yield f"{FILE} {name}: {count} stages of this name, of which DVC keeps one; fix: rename a group or an entry"
    for keys in _dotted(graph.params, 3):
        yield f"{paths.PARAMS} {' > '.join(keys)}: a dot in a key, which DVC takes for two keys; fix: rename it"


def _dotted(content: Any, depth: int) -> Iterator[tuple[str, ...]]:
    """Keys with dots down to the depth that `params:` names: section, entry, part of it."""
    if isinstance(content, dict) and depth:
        for key, inner in content.items():
            if "." in str(key):
                yield (str(key),)
            yield from ((str(key), *below) for below in _dotted(inner, depth - 1))


def outside(graph: Graph) -> Iterator[str]:
    """Dependencies and outputs that another clone does not have at that place; addresses may stand anywhere."""
    for address, stage in graph.stages.items():
        for kind, entries in (("deps", stage.deps), ("outs", stage.outs)):
            for entry in entries:
                path = str(entry.def_path)
                is_address = re.match(r"[a-z0-9+]+://", path) is not None
                if not is_address and (path.startswith(("/", "~")) or ".." in PurePosixPath(path).parts):
                    yield f"{FILE} {address}.{kind}: outside the project ({path}); fix: copy or link it in"


CHECKS = (imports, unused_code, params, outs, names, outside)
