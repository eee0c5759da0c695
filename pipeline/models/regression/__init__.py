"""Regression of a number from the numbers beside an image, a table's or a backbone's; NumPy only.

A model has `fit(features, targets, names, seed, **model_params) -> dict of arrays`, `values(arrays, features) -> [N]`
and `history(arrays, features, targets)`, the mean squared error by step of its training.
"""
