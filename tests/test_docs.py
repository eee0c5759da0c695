"""What README, CONTRIBUTING, docs/ and the comments of recipes tell to type exists, and what they show is taken."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from ruamel.yaml import YAML

from pipeline import cli
from pipeline.params import load, merge

PROJECT = Path(__file__).parent.parent
PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", PROJECT / "CHANGELOG.md", *PROJECT.glob("docs/*.md")]
TEXTS = [*PAGES, PROJECT / "Makefile", PROJECT / "params.yaml", PROJECT / "dvc.yaml", *PROJECT.glob("recipes/*.yaml")]
COMMANDS = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]  # a group
TARGETS = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.M))
YAML_OF_README = re.findall(r"```yaml\n(.*?)```", (PROJECT / "README.md").read_text(encoding="utf-8"), re.S)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_each_command_that_is_told_of_exists_with_its_options(path: Path) -> None:
    for line in re.findall(r"python -m pipeline ([^`\n#;|,]+)", path.read_text(encoding="utf-8")):
        verb, *rest = shlex.split(line.rstrip("\\").split(" $(")[0])
        assert verb in COMMANDS, line
        known = {name for parameter in COMMANDS[verb].params for name in parameter.opts}
        given = {word.strip("[]") for word in rest if word.lstrip("[").startswith("-")}
        assert given <= known, f"{line}: no {given - known}"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_each_make_target_that_is_told_of_exists(path: Path) -> None:
    told = re.findall(r"`make ([a-z -]+?)(?: [A-Z]+=\S+)*`", path.read_text(encoding="utf-8"))
    assert {target for targets in told for target in targets.split()} <= TARGETS


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_each_link_leads_to_a_file(path: Path) -> None:
    for link in re.findall(r"\]\(([^):]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / link).is_file(), link


@pytest.mark.parametrize("block", YAML_OF_README, ids=range(len(YAML_OF_README)))
def test_each_entry_that_the_readme_shows_is_one_that_params_take(block: str, tmp_path: Path) -> None:
    yaml = YAML(typ="safe")
    content: dict[str, Any] = merge(yaml.load(PROJECT / "recipes/zoo.yaml"), yaml.load(PROJECT / "params.yaml"))
    yaml.dump(merge(content, yaml.load(block)), tmp_path / "params.yaml")
    load(tmp_path / "params.yaml")
