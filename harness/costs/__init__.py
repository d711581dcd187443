"""Costs of a recipe that are known before it is trained: plan, profile, memory estimate."""
