import shutil
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest

from pipeline.trust import traces
from tests.trust.project import make


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as it is after its first repro; not to be changed."""
    return make(tmp_path_factory.mktemp("made") / "project")


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "project"
    shutil.copytree(made, folder)
    for looked_up in (traces._folders, traces._names):
        looked_up.cache_clear()
    with chdir(folder):
        yield folder
    for looked_up in (traces._folders, traces._names):
        looked_up.cache_clear()
