"""First light on a GPU: one command that tests, compares and measures on the card at hand."""
