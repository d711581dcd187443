"""Measuring what training costs: speed, memory, and what the numbers depend on."""
