"""The embedded task: synthetic radiology reports, findings to impression."""
