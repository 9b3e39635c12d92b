"""Annotations as people make them, turned into what training reads: seeds per pixel, contour regions."""
