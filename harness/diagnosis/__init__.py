"""Diagnosis: layers to drop, changes by role, and examples on which a recipe lost quality."""
