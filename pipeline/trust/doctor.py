"""`pipeline doctor`: what counts for a result on this machine, in words that can be pasted into a report of a fault."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from pipeline import __version__, git, paths
from pipeline.errors import PipelineError
from pipeline.machine import cores, memory

LOW = 2 * 2**30  # bytes free under which a stage may not be able to write
PACKAGES = Path("requirements.lock")
PROJECT = Path("pyproject.toml")


class Line(NamedTuple):
    """One thing, what it is here, and what is wrong with it: empty where nothing is."""

    name: str
    value: str
    fault: str = ""


def run() -> int:
    """Prints all sections; the exit code is 1 where something is wrong."""
    faults = 0
    sections: dict[str, Callable[[], Iterator[Line]]] = {
        "machine": machine,
        "packages": packages,
        "devices": devices,
        "determinism": determinism,
        "places": places,
        "services": services,
    }
    for title, section in sections.items():
        print(title)
        try:
            lines = list(section())
        except PipelineError as error:  # what the section needs cannot be read
            lines = [Line(title, "unknown", str(error))]
        width = max((len(line.name) for line in lines), default=0)
        for line in lines:
            print(f"  {line.name:<{width}}  {line.value}")
            if line.fault:
                faults += 1
                print(f"  {'':<{width}}  fault: {line.fault}")
    print("no faults" if not faults else f"{faults} {'fault' if faults == 1 else 'faults'}")
    return 1 if faults else 0


def machine() -> Iterator[Line]:
    """System, interpreter, cores, memory, language."""
    import locale

    yield Line("pipeline", f"{__version__}, commit {(git.commit() or 'none')[:12]}")
    yield Line("python", f"{platform.python_version()} ({platform.python_implementation()})")
    yield Line("system", f"{platform.system()} {platform.release()}, {platform.machine()}, {platform.libc_ver()[1]}")
    yield Line("cores", f"{cores()} of {os.cpu_count()}")
    yield Line("memory", f"{memory() / 2**30:.1f} GiB")
    yield Line("text", f"{sys.getfilesystemencoding()} file names, {locale.getlocale()[0] or 'C'} locale")


def packages() -> Iterator[Line]:
    """What pyproject.toml asks for, by the versions that are installed, against requirements.lock."""
    for name in _asked_for():
        yield Line(name, _installed(name) or "not installed")
    locked = dict(_locked())
    wrong = []
    for name, version in locked.items():
        have = _installed(name)
        if have is None:
            wrong.append(f"{name} is not installed, {version} is locked")
        elif have.partition("+")[0] != version.partition("+")[0]:  # a build for a device has a tail of its own
            wrong.append(f"{name} is {have}, {version} is locked")
    more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    fault = f"{'; '.join(wrong[:3])}{more}; fix: make install" if wrong else ""
    yield Line(str(PACKAGES), f"{len(locked) - len(wrong)} of {len(locked)} as locked", fault)


def _asked_for() -> list[str]:
    try:
        content = tomllib.loads(PROJECT.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PipelineError(f"{PROJECT}: not readable ({error}); fix: run in the folder of the project") from None
    return [re.split(r"[<>=!~\[; ]", line, maxsplit=1)[0] for line in content["project"]["dependencies"]]


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _locked() -> Iterator[tuple[str, str]]:
    """Names and versions in the lock that are for this machine; development tools may be absent and are left out."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        text = PACKAGES.read_text(encoding="utf-8")
    except OSError as error:
        raise PipelineError(f"{PACKAGES}: not readable ({error.strerror}); fix: git checkout {PACKAGES}") from None
    for match in re.finditer(r"^([a-z0-9][^ \n]*==[^\\\n]+?) *\\?$", text, re.M):
        try:
            requirement = Requirement(match[1])
        except InvalidRequirement:
            raise PipelineError(f"{PACKAGES}: not a requirement ({match[1]!r}); fix: make lock") from None
        if requirement.marker is None or requirement.marker.evaluate():
            yield requirement.name, str(requirement.specifier).removeprefix("==")


def devices() -> Iterator[Line]:
    """What torch can compute on."""
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    yield Line("torch", f"{torch.__version__}, built for {build}, {torch.backends.cpu.get_cpu_capability()}")
    if not torch.cuda.is_available():
        yield Line("gpu", "none")
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        name = f"{about.name}, {about.total_memory / 2**30:.0f} GiB, compute {about.major}.{about.minor}"
        yield Line(f"cuda:{index}", name)


def determinism() -> Iterator[Line]:
    """What a stage computes with, by params.yaml and this machine; what stages always set is not told."""
    from pipeline.launch import prepare_environment
    from pipeline.params import load

    params = load()
    prepare_environment(params)
    import torch

    from pipeline.training import seeding

    compute = seeding.set_up(params.defaults)
    yield Line("seed", str(params.defaults.seed))
    yield Line("device", f"{compute.device}, {'bfloat16' if compute.bfloat16 else 'float32'}")
    asked, have = params.defaults.threads, torch.get_num_threads()
    fault = f"{asked} are asked for; fix: unset OMP_THREAD_LIMIT" if asked != have else ""
    yield Line("threads", f"{have} ({os.environ['OMP_WAIT_POLICY'].lower()} waiting)", fault)
    onednn = "with" if torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled else "without"
    yield Line("kernels", f"{onednn} oneDNN")


def places() -> Iterator[Line]:
    """Caches and scratch, their size and what is free there."""
    from pipeline.data.download import cache

    for name, folder in (
        ("project", Path.cwd()),
        ("DVC cache", _dvc_cache()),
        ("downloads", cache()),
        ("unfinished training", paths.RESUME),
        ("temporary files", Path(tempfile.gettempdir())),
        ("shared memory", Path("/dev/shm")),
    ):
        above = next((each for each in (folder, *folder.absolute().parents) if each.is_dir()), None)
        if above is None:
            continue
        free = shutil.disk_usage(above).free
        fault = ""
        if not os.access(above, os.W_OK):
            fault = "cannot be written; fix: change its permissions"
        elif free < LOW and name != "shared memory":
            fault = f"less than {LOW / 2**30:.0f} GiB free; fix: free some space"
        held = f"{_size(folder) / 1e9:.2f} GB held, " if folder.is_dir() and name not in _NOT_COUNTED else ""
        yield Line(name, f"{folder}: {held}{free / 2**30:.1f} GiB free", fault)


_NOT_COUNTED = ("project", "temporary files", "shared memory")


def _dvc_cache() -> Path:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            return Path(repo.cache.local.path)
    except DvcException:
        return Path(".dvc/cache/files/md5")


def _size(folder: Path) -> int:
    total, pending = 0, [str(folder)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:  # gone meanwhile, or another user's
            continue
    return total


def services() -> Iterator[Line]:
    """The remote of DVC and the address of the tracking server, without what is secret in them."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    from pipeline.data.download import is_offline
    from pipeline.params import load
    from pipeline.tracking import shown_uri, sqlite_file

    try:
        with Repo() as repo:
            remotes = {name: str(about.get("url", "")) for name, about in repo.config.get("remote", {}).items()}
            default = repo.config["core"].get("remote")
    except DvcException as error:
        raise PipelineError(f"DVC: {' '.join(str(error).split())}; fix: run in the folder of the project") from None
    if not remotes:
        yield Line("DVC remote", "none: data that is lost here is made anew")
    for name, url in remotes.items():
        yield Line("DVC remote", f"{name}{' (default)' if name == default else ''}: {shown_uri(url)}")
    tracking = load().tracking
    database = sqlite_file(tracking.uri)
    state = "" if database is None else ", there" if database.is_file() else ", not made yet"
    yield Line("tracking", f"{shown_uri(tracking.uri)}{state}, {'required' if tracking.required else 'not required'}")
    yield Line("network", "forbidden by PIPELINE_OFFLINE" if is_offline() else "allowed")
