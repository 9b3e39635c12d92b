"""Measurements: ratios from one run, each by a command that anyone can repeat."""
