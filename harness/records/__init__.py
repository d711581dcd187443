"""Files that a run leaves on disk: its report, its profile and its folder."""
