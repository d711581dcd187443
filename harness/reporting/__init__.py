"""Reports: what a run says of itself, where that is stored, and how it is shown."""
