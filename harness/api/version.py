"""The version of the public API that plugins are written for."""

API_VERSION = 2
"""Raised when a plugin that was right must be changed. The page on plugins lists what holds within
a version, and what each version changed."""
