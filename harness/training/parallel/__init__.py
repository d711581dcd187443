"""A model whose weights are divided among the processes of a training, by torch's FSDP2."""
