"""Whether results can be trusted: `verify` holds files against dvc.lock, `doctor` tells of the machine."""
