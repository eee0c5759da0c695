"""The errors a user can cause, each one line: where, what is wrong, what to do."""

import difflib
from collections.abc import Iterable


class PipelineError(Exception):
    """A fault in data or in a run that its message tells how to mend; exit code 1."""

    exit_code = 1


class DivergedError(PipelineError):
    """A loss, gradient or weight that is not finite any more; a search counts such a trial and goes on."""


class ParamsError(PipelineError):
    """A fault in params.yaml or on the command line; exit code 2."""

    exit_code = 2


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """The tail of a message about an unknown name: its nearest spelling, then all choices."""
    choices = sorted(choices)
    near = difflib.get_close_matches(name, choices, n=1)
    nearest = f"did you mean {near[0]!r}? " if near else ""
    return f"{nearest}choices: {', '.join(choices) or 'none'}"
