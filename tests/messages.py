"""The errors that users can cause, collected from the code; `python tests/messages.py` writes docs/errors.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).parent.parent
PAGE = PROJECT / "docs/errors.md"
ERRORS = ("PipelineError", "ParamsError")
FAULT = "_Fault"  # of params.py: what is told with its line and key; of archives.py: with the archive's name
CODES = {"PipelineError": 1, "ParamsError": 2, FAULT: 2}

# The sections of the page, by where in the package a message stands; the first that fits counts.
SECTIONS = {
    "params.yaml and what it names": ("document", "params", "launch"),
    "Your data: layouts and annotations": ("data/formats", "data/records", "data/annotations", "data/datasets/local"),
    "Downloads, archives and addresses": ("data/download", "data/archives", "data/inputs", "data/originals"),
    "Data sets": ("data/datasets", "data/openmoji", "data/idx", "data/binary", "data/cifar", "data/pascal"),
    "Augmentation": ("data/augmentation", "data/presets", "data/geometry", "data/mixing", "data/autoaugment"),
    "Stores, features and loading": ("data",),
    "Models and their weights": ("models",),
    "Training": ("training", "stages/train", "stages/search", "checks"),
    "Metrics and scores": ("metrics", "reporting/scoring", "reporting/explain", "reporting/verdicts"),
    "Comparing": ("reporting/compare", "reporting/history", "lock", "git", "cost"),
    "Stages and reports": ("stages", "reporting", "visualise", "ops"),
    "The graph, its state and the machine": ("scheduling", "lint", "trust", "tracking", "cli"),
}

HEAD = """# Errors

Each error is one line on standard error: where it is (file, line or number, key), what is wrong with the value in
brackets, and after `fix:` what to do. The exit code is 2 for params.yaml and the command line, 1 for data and runs, 3
where a gate of `compare` fails, 130 after Ctrl-C, 143 after SIGTERM; `--debug` before or after the command adds the
traceback. A message that ends with "this is a bug" is ours to mend.

In the messages below `{name}` stands for what differs from case to case. The list is made of the code
(`python tests/messages.py`), and a test holds it against it.
"""


class Message(NamedTuple):
    """One place that raises.

    Attributes:
        file: from `pipeline/` on.
        line: in the file.
        error: the class.
        text: with {names} for what is put in.
        passed_on: whether the whole text comes from elsewhere.
    """

    file: str
    line: int
    error: str
    text: str
    passed_on: bool


def collect() -> Iterator[Message]:
    """All calls of the error classes, in the order of files and lines."""
    for path in sorted((PROJECT / "pipeline").rglob("*.py")):
        file = path.relative_to(PROJECT / "pipeline").as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
        for node in sorted(calls, key=lambda call: call.lineno):
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            if name in (*ERRORS, FAULT) and node.args:
                argument = node.args[1 if len(node.args) > 1 and name == FAULT else 0]
                passed_on = not isinstance(argument, ast.JoinedStr | ast.Constant | ast.BinOp)
                yield Message(file, node.lineno, name, _text(argument), passed_on)


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    if isinstance(node, ast.FormattedValue):
        return "{" + _name(node.value) + "}"
    return "{" + _name(node) + "}"


def _name(node: ast.expr) -> str:
    """A word for what is put into a message."""
    if isinstance(node, ast.Name):
        return node.id.strip("_")
    if isinstance(node, ast.Attribute):
        return node.attr.strip("_")
    if isinstance(node, ast.Call):
        called = _name(node.func)
        if called in ("did_you_mean", "near", "nearest", "unknown", "again"):
            return called
        inner = [*node.args, node.func.value] if isinstance(node.func, ast.Attribute) else node.args
        return next((name for each in inner if (name := _name(each)) != "..."), called)
    if isinstance(node, ast.Subscript):
        return _name(node.value)
    if isinstance(node, ast.GeneratorExp | ast.ListComp | ast.SetComp):
        return _name(node.generators[0].iter)
    if isinstance(node, ast.IfExp | ast.BoolOp):
        return _name(node.body if isinstance(node, ast.IfExp) else node.values[0])
    return "..."


def section_of(file: str) -> str:
    """The section of a file's messages."""
    for title, beginnings in SECTIONS.items():
        if any(file == f"{each}.py" or file.startswith(f"{each}/") for each in beginnings):
            return title
    raise ValueError(f"{file}: in no section of {__file__}")


def says_what_to_do(message: Message) -> bool:
    """Whether a message ends in a fix, in the names that there are, or in words of another place that do."""
    if message.error == FAULT or message.passed_on or "fix:" in message.text or "choices:" in message.text:
        return True
    tails = re.findall(r"\{(\w+)\}", message.text)
    return bool(tails) and tails[-1] in (
        "did_you_mean", "near", "nearest", "unknown", "again", "fix", "why", "message", "fault", "error", "what",
    )  # fmt: skip


def page() -> str:
    """docs/errors.md."""
    found: dict[str, set[str]] = {title: set() for title in SECTIONS}
    for message in collect():
        if not message.passed_on and message.text.count("{") < len(message.text.split()):
            text = message.text.replace("`", "'").replace("\n", " ")
            text = f"{{place}}: {text}" if message.error == FAULT else text
            found[section_of(message.file)].add(f"- `{text}` ({CODES[message.error]})")
    parts = [HEAD]
    parts += [f"## {title}\n\n" + "\n".join(sorted(lines)) + "\n" for title, lines in found.items() if lines]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
