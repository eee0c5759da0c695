"""Reads reports/ and params.yaml, writes reports/index.html and reports/summary.md."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pipeline import paths
from pipeline.reporting import page, summary
from pipeline.reporting.contents import read_contents

if TYPE_CHECKING:
    from pipeline.params import Params


def run(params: Params) -> None:
    """Writes the page and the summary; warns of folders that no entry of params.yaml owns.

    Raises:
        PipelineError: a stage's report is absent or broken.
    """
    contents = read_contents(params)
    for folder in contents.strays:
        print(
            f"warning: {folder}: no entry of {paths.PARAMS} owns it, so the report leaves it out; "
            f"fix: git rm -r {folder}, or restore its entry",
            file=sys.stderr,
        )
    with paths.written_whole(paths.PAGE) as temporary:
        temporary.write_text(page.render(contents), encoding="utf-8")
    with paths.written_whole(paths.SUMMARY) as temporary:
        temporary.write_text(summary.render(contents), encoding="utf-8")
