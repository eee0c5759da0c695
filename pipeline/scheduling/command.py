"""`pipeline repro`: what the command line hands to the scheduler, and how it ends."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline import ledger, paths
from pipeline.errors import PipelineError
from pipeline.scheduling.graph import Graph
from pipeline.scheduling.resources import Pool, machine, needs
from pipeline.scheduling.scheduler import Interrupted, Plan, repro


def run(targets: Sequence[str], *, jobs: int | None, keep_going: bool, oversubscribe: bool, gpu_jobs: int) -> int:
    """Brings the targets up to date; the exit code.

    Raises:
        PipelineError: params.yaml is wrong, another repro runs, or a stage failed.
    """

    def plan(graph: Graph) -> Plan:
        return _plan(graph, Pool(machine(), oversubscribe=oversubscribe, per_gpu=gpu_jobs))

    try:
        states = repro(targets, jobs=jobs, keep_going=keep_going, plan=plan)
    except Interrupted as interrupted:
        print("stopped; what was finished is kept, and the next repro goes on from there")
        return 128 + interrupted.number
    failed = [name for name, state in states.items() if state == "failed"]
    if failed:
        raise PipelineError(f"failed: {', '.join(failed)}; fix: read {paths.LOGS}/{failed[0]}.log, then run it again")
    return 0


def _plan(graph: Graph, pool: Pool) -> Plan:
    """What the stages need and took; those that are no commands of ours take a thread."""
    from pipeline.params import load

    params, last = load(), ledger.last()
    found, seconds = {}, {}
    for address, stage in graph.stages.items():
        verb, name = ledger.verb_and_name(str(stage.cmd))
        if verb is None:
            continue
        line = last.get(ledger.key(verb, name))
        memory = line.peak_memory_mb if line else 0.0
        found[address] = needs(params, verb, name, memory_mb=memory, has_gpus=bool(pool.machine.gpus))
        if line:
            seconds[address] = line.seconds
    return Plan(pool, found, seconds)
