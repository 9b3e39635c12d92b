"""Nearest segments of a whole collection: an index on disk, queries, a page, and what they say of labels."""
