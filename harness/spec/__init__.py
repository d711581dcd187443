"""The specification of a run: recipe, settings of training, measurement and decoding."""
