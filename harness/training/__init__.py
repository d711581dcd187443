"""Fine-tuning: examples, their order, the forward pass and the loop."""
