"""MIMIC-IV-Note: from its CSV files to two tasks."""
