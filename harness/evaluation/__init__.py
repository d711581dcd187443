"""Evaluation: decoding predictions with a model, and scoring them with metrics."""
