"""Searching the rows of one worker: exactly, and by an inverted file."""
