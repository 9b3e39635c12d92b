"""Data sets as shards: tars of samples beside one manifest. Recipes make samples, `pack` writes them."""

from __future__ import annotations

import warnings

# Satellites and microscopes take pictures of 10,000 × 10,000 pixels; twice that Pillow refuses by itself.
warnings.filterwarnings("ignore", message="Image size .* could be decompression bomb")
