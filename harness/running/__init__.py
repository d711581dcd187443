"""One run: its inputs, its phases, its processes and the observers it reports to."""
