"""A training run: how it is launched, built, run step by step, logged, saved and resumed."""
