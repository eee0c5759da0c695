"""Heads and networks, one architecture per file, found by the path that params.yaml names."""
