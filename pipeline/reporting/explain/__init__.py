"""How a number of a report came about, one module per task; `command.py` prints it."""
