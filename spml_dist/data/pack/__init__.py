"""Samples written as tars beside one manifest."""
