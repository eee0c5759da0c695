"""`pipeline lint`: every check, one line for each fault; what was left behind, pruned where asked for."""

from __future__ import annotations

from pipeline import paths
from pipeline.lint import graph as graphs
from pipeline.lint import leftovers
from pipeline.lint.checks import CHECKS
from pipeline.params import load


def run(*, prune: bool) -> int:
    """Prints the faults; the exit code is 1 where there are any.

    Args:
        prune: removes what runs left behind that are no longer in params.yaml, saying what.

    Raises:
        PipelineError: params.yaml or dvc.yaml cannot be read.
    """
    params = load()
    graph = graphs.read()
    faults = [line for check in CHECKS for line in check(graph)]
    found = leftovers.find(params, graph.stages.keys())
    if prune:
        leftovers.prune(found)
        for folder in found.folders:
            print(f"removed {folder}")
        for name in found.entries:
            print(f"removed {name} from {paths.LOCK}")
    else:
        fix = "fix: python -m pipeline lint --prune, or restore its entry"
        faults += [f"{folder}: no entry of {paths.PARAMS} owns it; {fix}" for folder in found.folders]
        faults += [f"{paths.LOCK} {name}: no such stage in {graphs.FILE}; {fix}" for name in found.entries]
    for line in faults:
        print(line)
    stages = f"{len(graph.stages)} stages"
    print(f"{stages}: {len(faults)} {'fault' if len(faults) == 1 else 'faults'}" if faults else f"{stages}: no faults")
    return 1 if faults else 0
