"""Generation: many texts through a model, with the decoding that was measured."""
