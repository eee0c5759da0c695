"""One source per module, each with `prepare(folder, *, seed, <options>)`; a dataset's `source` names the module."""
