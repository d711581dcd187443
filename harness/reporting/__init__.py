"""Rendering of reports: summaries, tables, documents, the HTML page and recommendations."""
