"""Search: recipes, options and learning rates tried within a budget, and a front of the best."""
