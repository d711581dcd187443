"""Forward and backward passes of a batch: padded or packed, with the kernels that they use."""
