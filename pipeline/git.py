"""git, asked for what it knows of the project."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pipeline.errors import PipelineError


def said(*arguments: str, folder: Path | None = None, given: bytes = b"") -> bytes:
    """What a git command prints.

    Args:
        arguments: of the command.
        folder: in which it runs; None: the working folder.
        given: its standard input.

    Raises:
        PipelineError: git is not installed, or refuses.
    """
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, input=given, capture_output=True)
    except OSError as error:
        raise PipelineError(f"git: cannot be run ({error.strerror}); fix: install git") from None
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit code {done.returncode}"]
        if "not a git repository" in lines[0]:
            raise PipelineError(
                f"{folder or Path.cwd()}: not in a git repository; fix: run in the folder of the project"
            )
        raise PipelineError(f"git {arguments[0]}: {lines[0]}; fix: commit the project first")
    return done.stdout


def found(*arguments: str) -> bytes | None:
    """`said` of a question to which git may have no answer, which is None."""
    try:
        return said(*arguments)
    except PipelineError:
        return None


def commit(revision: str = "HEAD") -> str | None:
    """The full name of a commit; None outside git, and where there is none of that name."""
    answer = found("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    return answer.decode().strip() if answer is not None else None
