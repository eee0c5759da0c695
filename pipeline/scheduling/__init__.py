"""`pipeline repro`: DVC's own graph, each stage started when its inputs are ready, on all cores and GPUs."""
