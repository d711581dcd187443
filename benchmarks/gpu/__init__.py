"""Tests, comparisons and measurements on the GPU of this machine, by one command."""
