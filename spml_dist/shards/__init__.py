"""Data sets as shards: tars of samples beside one manifest. Recipes make samples, `pack` writes them."""
