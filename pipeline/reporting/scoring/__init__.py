"""`pipeline score`: the evaluation engine on other tools' files, without a pipeline around it.

`truth.py` and `results.py` read objects and detections, `detection.py` judges them; `tables.py` and `maps.py` bring the
other tasks into the form in which `reporting/verdicts` judges runs; `command.py` writes what comes out.
"""
