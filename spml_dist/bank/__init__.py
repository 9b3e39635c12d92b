"""The memory of segments: rows, and who is searched for among them."""
