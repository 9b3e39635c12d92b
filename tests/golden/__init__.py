"""Vectors of the published method, and the command that compares the package with them."""
