"""Which files of the package run when a stage does: what it imports, what that imports, what is found by name.

Paths are relative to the project's folder, as in dvc.yaml.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import PipelineError
from pipeline.params import GENERATIVE, TASKS, task_of

PROJECT = Path(__file__).parent.parent.parent
BESIDE = (".csv", ".css", ".j2", ".js")  # suffixes of files that modules read from their own folder

# What a stage imports and yet need not depend on, for it can change no byte of an output.
NO_INFLUENCE = {
    "pipeline/errors.py": "words of messages",
    "pipeline/progress.py": "bars on standard error",
    "pipeline/git.py": "which commit is checked out, for the ledger and MLflow",
    "pipeline/machine.py": "how many processes work; `batch_size: auto` differs by machine, as it says",
    "pipeline/launch.py": "passes on what params.yaml says of threads, and keeps the ledger",
    "pipeline/interruption.py": "when a training stops; it goes on to the same bytes",
    "pipeline/parent.py": "ends a stage whose dvc is gone",
    "pipeline/peak.py": "the memory that the ledger notes",
    "pipeline/ledger.py": "what stages cost, outside git and DVC",
    "pipeline/paths.py": "its paths are the outs and deps themselves",
    "pipeline/document.py": "reads params.yaml as DVC does, which a test proves; DVC records the values",
    "pipeline/params.py": "DVC records the values; test_params pins those that the schema itself supplies",
}


@cache
def tree(module: str) -> ast.Module:
    """The syntax tree of a file of the package."""
    return ast.parse((PROJECT / module).read_text(encoding="utf-8"))


@cache
def imports(module: str, runtime_only: bool = False) -> frozenset[str]:
    """The files of the package that a file imports, inside functions too; what a package holds counts, not its name.

    Args:
        module: the file.
        runtime_only: leaves out what stands under `if TYPE_CHECKING:`.

    Raises:
        PipelineError: a relative import, which this does not follow.
    """
    found = set()
    for node in _walk(tree(module), runtime_only):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise PipelineError(f"{module}:{node.lineno}: a relative import; fix: write it from `pipeline.` on")
            names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            for end in range(1, len(parts) + 1):
                path = "/".join(parts[:end])
                for file in (f"{path}.py", f"{path}/__init__.py"):
                    if parts[0] == "pipeline" and (PROJECT / file).is_file() and not _is_empty(file):
                        found.add(file)
    return frozenset(found - {module})


def _walk(top: ast.AST, runtime_only: bool) -> Iterator[ast.AST]:
    """All nodes, or all but those under `if TYPE_CHECKING:`."""
    yield top
    for child in ast.iter_child_nodes(top):
        for_types = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
        if not (runtime_only and for_types):
            yield from _walk(child, runtime_only)


def _is_empty(file: str) -> bool:
    """Whether a file holds nothing but a docstring and the version."""
    return all(
        (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__")
        for node in tree(file).body
    )


def closure(*roots: str, item: Any) -> set[str]:
    """The files that run when `roots` do for an entry of params.yaml, and the files of data that those name.

    Args:
        roots: files of the package; one that is absent is passed over.
        item: the entry as params.yaml has it, or None for a stage without one.
    """
    pending, seen = [root for root in roots if (PROJECT / root).is_file()], set[str]()
    while pending:
        module = pending.pop()
        if module not in seen:
            seen.add(module)
            pending.extend(imports(module, runtime_only=True))
            pending.extend(file for file in found_by_name(module, item) if (PROJECT / file).is_file())
    return seen | {file for module in seen for file in data_files(module)}


def found_by_name(module: str, item: Any) -> list[str]:
    """The plug-ins that a file finds for an entry; a visualisation reaches a model through its checkpoint alone.

    Raises:
        PipelineError: the file imports by a name of which this does not know where it comes from.
    """
    entry = item if isinstance(item, dict) else {}
    tasks: list[str | None] = [task_of(entry["model"])] if "model" in entry else [*TASKS, GENERATIVE]
    names: dict[str, list[str | None]] = {
        "pipeline.stages.": [],  # the root
        "pipeline.data.datasets.": [entry.get("source")],
        "pipeline.models.": [entry.get("model")],
        "pipeline.visualise.": [entry.get("module")],
        "pipeline.metrics.": tasks,
        "pipeline.reporting.verdicts.": tasks,
    }
    found: list[str] = []
    for prefix in re.findall(r"import_module\(\s*f?\"([^{\"]*)", (PROJECT / module).read_text(encoding="utf-8")):
        if prefix not in names:
            known = ", ".join(names)
            raise PipelineError(f"{module}: imports {prefix}* by name; fix: say in pipeline/lint where from ({known})")
        found += [f"{prefix.replace('.', '/')}{name}.py" for name in names[prefix] if name]
    return found


def data_files(module: str) -> list[str]:
    """The files beside a module that its text names."""
    text = (PROJECT / module).read_text(encoding="utf-8")
    beside = sorted(path for path in (PROJECT / module).parent.iterdir() if path.suffix in BESIDE)
    return [str(path.relative_to(PROJECT)) for path in beside if f'"{path.name}"' in text]


def is_covered(file: str, deps: set[str]) -> bool:
    """Whether a file is a dependency or lies in a folder that is one."""
    return file in deps or any(str(folder) in deps for folder in PurePosixPath(file).parents)
