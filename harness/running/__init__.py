"""One run: its inputs, its phases, its processes and its observers."""
