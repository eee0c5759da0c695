"""Reads reports/ and params.yaml, writes reports/index.html, reports/summary.md and reports/contrasts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pipeline import paths
from pipeline.reporting import page, summary
from pipeline.reporting.contents import read_contents
from pipeline.reporting.contrasts import read_contrasts
from pipeline.reporting.curves import standing_alone

if TYPE_CHECKING:
    from pipeline.params import Params


def run(params: Params) -> None:
    """Writes the page, the summary and the contrasts; warns of folders that no entry of params.yaml owns.

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
    contrasts = read_contrasts(params, contents)
    with paths.written_whole(paths.CONTRASTS) as folder:
        paths.write_json(folder / "contrasts.json", {one.name: one.content() for one in contrasts})
        for one in contrasts:
            if one.chart:
                (folder / f"{one.name}.svg").write_text(standing_alone(one.chart), encoding="utf-8")
    with paths.written_whole(paths.PAGE) as temporary:
        temporary.write_text(page.render(contents, contrasts), encoding="utf-8")
    with paths.written_whole(paths.SUMMARY) as temporary:
        temporary.write_text(summary.render(contents, contrasts), encoding="utf-8")
