"""Sweeps on a Slurm cluster: arrays of jobs, their files, and their view from anywhere."""
