"""A composed model: a backbone with a recipe applied, and its operations counted."""
