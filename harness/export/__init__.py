"""Export: the model of a run for other programs, with a proof that it is the model measured."""
