"""Fitting a model: loop, optimisers, regularisation, checkpoints and seeds."""
