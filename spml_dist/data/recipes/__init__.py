"""Recipes: what each kind of source holds, read image by image."""
