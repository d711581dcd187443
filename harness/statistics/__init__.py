"""Intervals, resampling and corrections of p-values."""
