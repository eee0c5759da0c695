"""One module per command: reads files, calls pure functions, writes files."""
