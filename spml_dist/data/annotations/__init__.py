"""Annotations as people make them, turned into what training reads: labels per pixel, contour regions."""
