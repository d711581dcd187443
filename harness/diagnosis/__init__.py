"""Where a model can be made cheaper, and where a recipe lost its quality."""
