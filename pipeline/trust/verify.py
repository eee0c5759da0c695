"""`pipeline verify`: every object of DVC's cache and every output held against dvc.lock, byte by byte.

DVC itself trusts a read-only object and a file whose time did not change, so that neither `dvc status` nor
`dvc checkout` sees a flipped bit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline import paths
from pipeline.document import Document
from pipeline.errors import PipelineError
from pipeline.progress import byte_progress
from pipeline.trust import objects, record, traces
from pipeline.trust.record import Entry, Record
from pipeline.trust.states import Commit, State, Workspace

if TYPE_CHECKING:
    from dvc.repo import Repo


class Project(NamedTuple):
    """What DVC says of the project.

    Attributes:
        stages: all addresses of dvc.yaml.
        in_git: paths of outputs that DVC does not cache.
        cache: the folder of the cache's objects.
        has_remote: whether objects may be elsewhere.
    """

    stages: list[str]
    in_git: frozenset[str]
    cache: Path
    has_remote: bool


class Found(NamedTuple):
    """Files by their hashes.

    Attributes:
        objects: for each hash that the name of an object in the cache says, the one that its content has.
        md5s: of the files of the workspace.
        folders: the md5 of each file in a folder of the cache, by the folder's hash; None where its list is not there.
    """

    objects: dict[str, str | None]
    md5s: dict[str, str]
    folders: dict[str, dict[str, str] | None]

    def is_cached(self, md5: str) -> bool:
        """Whether the cache holds an object as it should be."""
        return self.objects.get(md5) == md5.removesuffix(record.DIR)


def run(*, committed: bool = False) -> int:
    """Prints what is damaged or missing, a line each, and how to repair it; the exit code is 1 where anything is.

    Args:
        committed: looks at what git has at HEAD alone, which needs no data.

    Raises:
        PipelineError: no DVC project, or dvc.lock cannot be read.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    from pipeline.scheduling.graph import one_line

    if paths.LOCK.is_file():  # whose faults DVC tells of another file
        record.read(paths.LOCK.read_text(encoding="utf-8", errors="replace"), str(paths.LOCK))
    try:
        repo = Repo()
        stages = list(repo.index.stages)
    except DvcException as error:
        raise PipelineError(f"dvc.yaml: {one_line(error)}; fix: see dvc repro --dry") from None
    with repo:
        project = Project(
            stages=[str(stage.addressing) for stage in stages],
            in_git=frozenset(str(out.def_path) for stage in stages for out in stage.outs if not out.use_cache),
            cache=Path(repo.cache.local.path),
            has_remote=bool(repo.config.get("remote")),
        )
        told: dict[str, str] = {}
        summary = ""
        if not committed:
            summary, lines = _workspace(repo, project)
            told = {line: line for line in lines}
            for line in lines:
                print(line)
        root = Path(repo.root_dir)
        head = Commit(root) if committed else _head(root)
        if head is not None:
            for line in _commit(head, project):
                if line.removeprefix("HEAD:") not in told:
                    told[line] = line
                    print(line)
    found = "no faults" if not told else f"{len(told)} {'fault' if len(told) == 1 else 'faults'}"
    print(f"{summary or 'what is committed'}: {found}")
    return 1 if told else 0


def _head(root: Path) -> Commit | None:
    """What git has at HEAD; None outside git and before the first commit."""
    try:
        head = Commit(root)
    except PipelineError:
        return None
    return head if head.blobs else None


def _workspace(repo: Repo, project: Project) -> tuple[str, list[str]]:
    """What was looked at, and what is wrong."""
    state = Workspace(repo)
    lock = record.read(state.text(paths.LOCK), str(paths.LOCK))
    cached = list(objects.cached(project.cache))
    needed = sorted(
        {file for entry in (*lock.outs, *lock.deps) if _is_inside(entry) for file in state.files(entry.path)}
    )
    files = [*(each.path for each in cached), *(state.root / name for name in needed)]
    total = sum(path.stat().st_size for path in files if path.is_file())
    with byte_progress("verify", total) as count:
        contents = objects.hashes([each.path for each in cached], count)
        md5s = state.md5s(needed, count)
    folders = {entry.md5 for entry in lock.outs if entry.is_folder and entry.path not in project.in_git}
    found = Found(
        {each.md5: contents[each.path] for each in cached},
        md5s,
        {md5: objects.listed(objects.place(project.cache, md5)) for md5 in folders},
    )
    lines = [
        *_damaged_objects(lock, project, found, cached, state),
        *_outputs(lock, project, found, state),
        *_unmade(lock, project),
        *_stale(lock, project, state, md5s),
        *_params(lock, Document(paths.PARAMS).content, ""),
        *_traces(lock, state, project),
    ]
    return f"{len(cached)} cached objects and {len(needed)} files ({total / 1e9:.2f} GB)", lines


def _is_inside(entry: Entry) -> bool:
    path = Path(entry.path)
    return bool(entry.md5) and not path.is_absolute() and ".." not in path.parts and "://" not in entry.path


def _parts(entry: Entry, found: Found) -> dict[str, str] | None:
    """The md5 of each file of a cached output by its path; None where the folder's list is not in the cache."""
    if not entry.is_folder:
        return {entry.path: entry.md5}
    listed = found.folders[entry.md5]
    return None if listed is None else {f"{entry.path}/{name}": md5 for name, md5 in listed.items()}


def _objects_of(entry: Entry, found: Found) -> list[str]:
    """The objects that an output needs, as far as they are known."""
    folder = [entry.md5] if entry.is_folder else []
    return [*folder, *(_parts(entry, found) or {}).values()]


def _repair(entry: Entry, project: Project, found: Found, state: State) -> str:
    """What brings an object of an output back into the cache."""
    if state.md5_of(entry.path, found.md5s) == entry.md5:
        return f"dvc commit --force {entry.stage}"
    if project.has_remote:
        return f"dvc fetch {entry.stage} && dvc checkout --force {entry.path}"
    return f"dvc repro --force --single-item {entry.stage}"


def _damaged_objects(
    lock: Record, project: Project, found: Found, cached: list[objects.Cached], state: State
) -> Iterator[str]:
    """Objects whose content is not what their name says, whoever needs them."""
    owners: dict[str, Entry] = {}
    for entry in lock.outs:
        if entry.md5 and entry.path not in project.in_git:
            owners.update(dict.fromkeys(_objects_of(entry, found), entry))
    for each in cached:
        if found.is_cached(each.md5):
            continue
        md5, where = found.objects[each.md5], _shown(each.path, state)
        what = f"damaged (its md5 is {md5})" if md5 else "not readable"
        if each.md5 in owners:
            owner = owners[each.md5]
            yield (
                f"{where}: {what}, part of {owner.path}; fix: rm -f {where} && {_repair(owner, project, found, state)}"
            )
        else:
            yield f"{where}: {what}, of an earlier state; fix: rm -f {where}"


def _shown(path: Path, state: State) -> str:
    root = getattr(state, "root", Path())
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _outputs(lock: Record, project: Project, found: Found, state: Workspace) -> Iterator[str]:
    """Outputs that are not what the stage wrote, and objects that the cache lacks."""
    nowhere: list[Entry] = []
    for entry in lock.outs:
        if not entry.md5:
            yield f"{paths.LOCK} {entry.stage}: {entry.path} has no md5; fix: dvc repro --force {entry.stage}"
            continue
        now = state.md5_of(entry.path, found.md5s)
        if entry.path in project.in_git:
            if now != entry.md5:
                yield _uncached(entry, now, found, state)
            continue
        wanted = _objects_of(entry, found)
        is_whole = _parts(entry, found) is not None and all(map(found.is_cached, wanted))
        if not now and not any(md5 in found.objects for md5 in wanted):
            nowhere.append(entry)
        elif now != entry.md5:
            fix = f"dvc checkout --force {entry.path}" if is_whole else _repair(entry, project, found, state)
            yield f"{_different(entry, found, state, now)}; fix: {fix}"
        if any(md5 in found.objects for md5 in wanted) or now:
            for md5 in wanted:
                if md5 not in found.objects:
                    where = _shown(objects.place(project.cache, md5), state)
                    yield f"{where}: missing, part of {entry.path}; fix: {_repair(entry, project, found, state)}"
                    break
    if nowhere:
        names = ", ".join(entry.path for entry in nowhere[:3]) + (", ..." if len(nowhere) > 3 else "")
        fix = "dvc pull" if project.has_remote else "dvc repro"
        yield f"{len(nowhere)} outputs: neither in the workspace nor in the cache ({names}); fix: {fix}"


def _different(entry: Entry, found: Found, state: Workspace, now: str) -> str:
    """An output that is not as it was written, by the first file in it that is wrong."""
    if not now:
        return f"{entry.path}: missing, {entry.stage} wrote it"
    for name, md5 in (_parts(entry, found) or {}).items():
        have = found.md5s.get(name)
        if have != md5:
            what = f"damaged or changed (its md5 is {have}, {paths.LOCK} has {md5})" if have else "missing"
            return f"{name}: {what}, {entry.stage} wrote it"
    known = set(_parts(entry, found) or {})
    for name in state.files(entry.path) if known else ():
        if name not in known:
            return f"{name}: {entry.stage} did not write it"
    return f"{entry.path}: damaged or changed (its md5 is {now}, {paths.LOCK} has {entry.md5}), {entry.stage} wrote it"


def _uncached(entry: Entry, now: str, found: Found, state: State) -> str:
    """An output in git that is not as its stage wrote it."""
    what = f"not what {entry.stage} wrote (its md5 is {now}, {paths.LOCK} has {entry.md5})" if now else "missing"
    fix = f"dvc repro --force --single-item {entry.stage}, or git checkout {entry.path}"
    return f"{state.prefix}{entry.path}: {what}; fix: {fix}"


def _unmade(lock: Record, project: Project) -> Iterator[str]:
    made = {entry.stage for entry in (*lock.outs, *lock.deps)} | set(lock.params)
    for stage in project.stages:
        if stage not in made:
            yield f"{paths.LOCK}: no {stage}, which dvc.yaml has; fix: dvc repro {stage}"


def _stale(lock: Record, project: Project, state: State, md5s: Mapping[str, str]) -> Iterator[str]:
    """Dependencies that have changed since their stages ran; each is told once, outputs of other stages are not."""
    made = {entry.path for entry in lock.outs}
    users: dict[tuple[str, str], list[str]] = defaultdict(list)
    for entry in lock.deps:
        if entry.path in made or not _is_inside(entry) or entry.stage not in project.stages:
            continue
        now = state.md5_of(entry.path, md5s)
        is_of_outs = any(out.startswith(f"{entry.path}/") for out in made)
        if now and now != entry.md5 and not is_of_outs:
            users[entry.path, now].append(entry.stage)
    for (path, _), stages in users.items():
        more = len(stages) - 1
        others = f" and {more} {'other' if more == 1 else 'others'}" if more else ""
        yield f"{state.prefix}{path}: changed since {stages[0]}{others} ran; fix: dvc repro"


def _params(lock: Record, params: Any, prefix: str) -> Iterator[str]:
    """Params that stages ran with and that params.yaml says otherwise."""
    told: set[str] = set()
    for stage, recorded in lock.params.items():
        for name, then, now in record.differences(recorded, params):
            if name not in told:
                told.add(name)
                yield (
                    f"{prefix}{paths.PARAMS} {name}: {_value(now)}, and {stage} ran with {_value(then)}; "
                    f"fix: dvc repro {stage}"
                )


def _value(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _traces(lock: Record, state: State, project: Project) -> Iterator[str]:
    """Outputs that hold a time, an absolute path or a host name."""
    for entry in lock.outs:
        suffixes = (*traces.TEXT, ".png") if entry.path in project.in_git else traces.TEXT
        names = [name for name in state.files(entry.path) if name.endswith(suffixes)]
        for name, content in state.contents(names):
            for what in traces.of(name, content):
                fix = f"keep it out of what {entry.stage} writes"
                yield f"{state.prefix}{name}: holds {what}, which another run would not; fix: {fix}"


def _commit(state: Commit, project: Project) -> Iterator[str]:
    """What git has at HEAD: outputs, code and params that do not belong to its dvc.lock."""
    lock = record.read(state.text(paths.LOCK), f"{state.prefix}{paths.LOCK}")
    tracked = [entry for entry in (*lock.outs, *lock.deps) if state.files(entry.path)]
    ignore: Callable[[int], None] = lambda _: None  # noqa: E731
    md5s = state.md5s(sorted({name for entry in tracked for name in state.files(entry.path)}), ignore)
    found = Found({}, md5s, {})
    for entry in lock.outs:
        now = state.md5_of(entry.path, md5s)
        if now != entry.md5 and (now or entry.path in project.in_git):
            yield _uncached(entry, now, found, state)
    yield from _stale(lock, project, state, md5s)
    yield from _params(lock, _yaml(state), state.prefix)
    yield from _traces(lock, state, project)


def _yaml(state: Commit) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe").load(state.text(paths.PARAMS))
    except YAMLError as error:
        what = " ".join(str(error).split())
        raise PipelineError(f"{state.prefix}{paths.PARAMS}: not valid YAML ({what}); fix: commit a valid one") from None
