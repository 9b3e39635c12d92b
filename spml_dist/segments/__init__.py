"""Pixels to segments: local features, spherical k-means, intersection with regions and labels, prototypes."""
