"""Measurement of training: speed, memory, energy, and the machine that they depend on."""
