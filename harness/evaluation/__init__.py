"""Evaluation: predictions of a model on a split."""
