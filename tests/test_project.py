"""The rules of the project's architecture, held against its files."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.cli import COMMANDS
from pipeline.lint import checks
from pipeline.lint import graph as graphs
from pipeline.lint.imports import imports
from pipeline.params import methods
from pipeline.stages.track import SECTIONS

PROJECT = Path(__file__).parent.parent
DVC_YAML = YAML(typ="safe").load(PROJECT / "dvc.yaml")
PARAMS = YAML(typ="safe").load(PROJECT / "params.yaml")
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
MODULES = sorted(str(path.relative_to(PROJECT)) for path in (PROJECT / "pipeline").rglob("*.py"))

# From left to right; a file imports from its own layer and from those before it.
LAYERS = (
    ("errors", "git", "machine", "peak", "paths", "document", "params"),
    ("structures", "progress", "interruption", "ledger", "ops"),
    ("data",),
    ("models",),
    ("training",),
    ("metrics",),
    ("visualise",),
    ("reporting", "tracking", "lock"),
    ("stages",),
    ("launch", "parent", "lint", "cost", "checks", "scheduling", "trust"),
    ("cli",),
    ("__main__",),
)


def layer(module: str) -> int:
    top = PurePosixPath(module).parts[1].removesuffix(".py")
    return next(i for i, tops in enumerate(LAYERS) if top in tops)


@pytest.fixture(scope="module")
def stages() -> dict[str, Any]:
    """Every stage by its name, as DVC itself reads dvc.yaml and params.yaml."""
    from dvc.repo import Repo

    with Repo(str(PROJECT)) as repo:
        return {stage.addressing: stage for stage in repo.index.stages}


def dependencies(stage: Any) -> set[str]:
    return {dep.def_path for dep in stage.deps if not dep.def_path.endswith(".yaml")}


def verb_of(command: str) -> str:
    return command.removeprefix("python -m pipeline ").split()[0]


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module: str) -> None:
    if module == "pipeline/__init__.py":
        return
    for imported in imports(module):
        assert layer(imported) <= layer(module), f"{module} imports {imported}, which stands to its right"
        if layer(imported) == layer(module) == layer("pipeline/stages/train.py"):
            pytest.fail(f"{module} imports {imported}: stages meet in files")
        if layer(module) == layer("pipeline/metrics/x.py"):
            assert not imported.startswith(("pipeline/models", "pipeline/training")), f"{module} sees a model"


def test_imports_make_no_circle() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for imported in imports(module, runtime_only=True):
                visit(imported, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def test_only_tracking_imports_mlflow() -> None:
    for module in MODULES:
        names = re.findall(r"^\s*(?:import|from) (mlflow)\b", (PROJECT / module).read_text(encoding="utf-8"), re.M)
        assert not names or module == "pipeline/tracking.py"


def test_files_are_named_after_what_they_hold() -> None:
    for module in MODULES:
        assert not re.search(r"(utils?|helpers?|commons?|misc|managers?)(/|\.py|_)", module), module


def test_graph_command_line_and_stage_files_agree() -> None:
    verbs = {verb_of(group.get("do", group)["cmd"]) for group in DVC_YAML["stages"].values()}
    files = {Path(m).stem for m in MODULES if m.startswith("pipeline/stages/") and not m.endswith("__init__.py")}
    assert verbs == set(COMMANDS) == files


def test_each_group_stands_under_its_verb_and_names_its_entry() -> None:
    for name, group in DVC_YAML["stages"].items():
        words = group.get("do", group)["cmd"].split()
        assert words[:3] == ["python", "-m", "pipeline"]
        assert name in (words[3], f"{words[3]}_generator")
        if "foreach" in group:
            assert words[4:] == ["${key}"]
            assert group["foreach"].strip("${}") in COMMANDS[words[3]].sections
            assert SECTIONS[name] == group["foreach"].strip("${}")
        else:
            assert words[4:] == []
            assert COMMANDS[words[3]].sections == ()


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test_the_graph_has_no_fault_that_lint_finds(check: Callable[[graphs.Graph], Iterator[str]]) -> None:
    assert list(check(graphs.read())) == []


def test_no_stage_depends_on_a_folder_of_plug_ins(stages: dict[str, Any]) -> None:
    holders = [f"pipeline/{path}" for path in ("data/datasets", "models/detection", "visualise", "stages")]
    for address, stage in stages.items():
        for dep in dependencies(stage):
            inside = [folder for folder in holders if folder == dep or folder.startswith(f"{dep}/")]
            assert not inside, f"{address} depends on {dep}: one new plug-in would make it stale"
            assert not re.fullmatch(r"pipeline/models/\w+", dep), f"{address} depends on {dep}"


def test_plug_ins_are_found_by_name_alone() -> None:
    by_method = {f"pipeline/visualise/{module}.py" for module in methods()}
    for module in MODULES:
        for imported in imports(module):
            folder = str(PurePosixPath(imported).parent)
            is_model = re.fullmatch(r"pipeline/models/\w+", folder) and not imported.endswith("__init__.py")
            is_plug_in = is_model or folder == "pipeline/data/datasets" or imported in by_method
            near = folder == str(PurePosixPath(module).parent)  # one plug-in may build on its neighbour
            assert not is_plug_in or near, f"{module} imports {imported}; fix: importlib on the name"


def test_each_command_stands_in_the_readme() -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    for verb, command in COMMANDS.items():
        assert f"`python -m pipeline {verb}{' NAME' if command.sections else ''}`" in readme
        assert command.help


def test_each_package_folder_and_file_is_shipped() -> None:
    globs = PYPROJECT["tool"]["setuptools"]["package-data"]["pipeline"]
    for path in (PROJECT / "pipeline").rglob("*"):
        if "__pycache__" in path.parts:
            continue
        if path.is_dir():
            assert (path / "__init__.py").is_file(), f"{path}: setuptools would leave it out"
        elif path.suffix != ".py":
            inner = path.relative_to(PROJECT / "pipeline")
            assert any(inner.match(glob.removeprefix("**/")) for glob in globs), f"{inner}: not in package-data"
    assert (PROJECT / "pipeline/py.typed").is_file()


def test_each_dependency_says_what_it_is_for() -> None:
    text = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    wanted = PYPROJECT["project"]["dependencies"] + PYPROJECT["project"]["optional-dependencies"]["dev"]
    for dependency in wanted:
        assert re.search(rf'^ +"{re.escape(dependency)}", +# \w.{{8,}}$', text, re.M), dependency


def test_the_lock_pins_with_hashes_and_names_no_index() -> None:
    text = (PROJECT / "requirements.lock").read_text(encoding="utf-8")
    assert not re.search(r"https?://|file:|index-url|find-links|trusted-host", text)
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.M)[1:]
    for block in blocks:
        assert re.match(r"[a-z0-9._-]+==[^ ]+( ;[^\\]+)? \\\n +--hash=sha256:[0-9a-f]{64}", block), block.splitlines()[
            0
        ]
    locked = {block.partition("==")[0] for block in blocks}
    for dependency in PYPROJECT["project"]["dependencies"]:
        assert re.split("[=>]", dependency, maxsplit=1)[0].replace(".", "-") in locked


STUB = """\
# Writes the outputs before `--`, their content a digest of params.yaml and of the dependencies after it.
outs=""
while [ "$1" != -- ]; do outs="$outs $1"; shift; done
shift
digest=$(find "$@" -type f | sort | xargs cat params.yaml | cksum)
for out in $outs; do
    case "${out##*/}" in
        *.*) mkdir -p "${out%/*}"; echo "$digest" > "$out" ;;
        *) mkdir -p "$out"; echo "$digest" > "$out/file.txt" ;;
    esac
done
"""

Repro = Callable[[], set[str]]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Repro]:
    """A repository with the real graph over a toy params file, its commands stubs; run once, and a way to run again."""
    folder = tmp_path_factory.mktemp("toy")
    shutil.copytree(PROJECT / "pipeline", folder / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".dvcignore", ".gitignore"):
        shutil.copy(PROJECT / name, folder)
    shutil.copy(PROJECT / "tests/toy_params.yaml", folder / "params.yaml")
    (folder / "requirements.lock").write_text("nothing\n", encoding="utf-8")
    for kept in (PROJECT / "reports").glob("*/.gitkeep"):  # so that a job without generators can be reported on
        (folder / kept.relative_to(PROJECT)).parent.mkdir(parents=True)
        shutil.copy(kept, folder / kept.relative_to(PROJECT))
    (folder / "stub.sh").write_text(STUB, encoding="utf-8")
    graph = YAML(typ="safe").load(PROJECT / "dvc.yaml")
    for group in graph["stages"].values():
        body = group.get("do", group)
        listed = [out for key in ("outs", "metrics", "plots") for out in body.get(key, [])]
        outs = [next(iter(out)) if isinstance(out, dict) else out for out in listed]
        body["cmd"] = " ".join(["sh stub.sh", *outs, "--", *body["deps"]])
    YAML(typ="safe").dump(graph, folder / "dvc.yaml")

    def call(*arguments: str) -> str:
        done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def repro() -> set[str]:
        return set(re.findall(r"Running stage '(.+)'", call(sys.executable, "-m", "dvc", "repro")))

    call("git", "init", "--quiet")
    call(sys.executable, "-m", "dvc", "init", "--quiet")
    shutil.copy(PROJECT / ".dvc/config", folder / ".dvc/config")
    assert "train@resnet" in repro()
    return folder, repro


def edit(folder: Path, old: str, new: str) -> None:
    path = folder / "params.yaml"
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_a_second_repro_and_one_after_a_comment_run_nothing(toy: tuple[Path, Repro]) -> None:
    folder, repro = toy
    assert repro() == set()
    edit(folder, "# of non-maximum suppression", "# of suppression, within a class")
    assert repro() == set()


def test_another_learning_rate_runs_that_runs_stages_and_the_report(toy: tuple[Path, Repro]) -> None:
    folder, repro = toy
    edit(folder, "      lr: 0.002", "      lr: 0.003")
    assert repro() == {"train@fcos", "predict@fcos", "evaluate@fcos", "report", "track"}


def test_another_learning_rate_of_a_run_that_is_visualised_redraws_it(toy: tuple[Path, Repro]) -> None:
    folder, repro = toy
    edit(folder, "      epochs: 8", "      epochs: 8\n      lr: 0.003")
    assert repro() == {"train@resnet", "predict@resnet", "evaluate@resnet", "visualise@gradcam", "report", "track"}


def test_another_suppression_threshold_only_scores_anew(toy: tuple[Path, Repro]) -> None:
    folder, repro = toy
    edit(folder, "iou_threshold: 0.6", "iou_threshold: 0.5")
    assert repro() == {"evaluate@fcos", "report", "track"}


def test_another_number_of_samples_leaves_the_generator_trained(toy: tuple[Path, Repro]) -> None:
    folder, repro = toy
    edit(folder, "num_samples: 512", "num_samples: 256")
    assert repro() == {"sample@vae", "evaluate_generator@vae", "report", "track"}


def test_a_new_model_file_makes_nothing_stale(toy: tuple[Path, Repro]) -> None:
    folder, repro = toy
    for new in ("models/detection/other.py", "data/datasets/other.py", "visualise/other.py"):
        (folder / "pipeline" / new).write_text('"""Another."""\n', encoding="utf-8")
    assert repro() == set()


def test_a_changed_model_file_makes_only_its_own_runs_stale(toy: tuple[Path, Repro]) -> None:
    folder, repro = toy
    with (folder / "pipeline/models/generative/vae.py").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert repro() == {"train_generator@vae", "sample@vae", "evaluate_generator@vae", "report", "track"}
