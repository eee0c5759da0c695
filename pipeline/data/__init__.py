"""Datasets in one on-disk form: sources, store, augmentation and batches."""
