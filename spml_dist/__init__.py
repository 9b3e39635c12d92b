"""spml_dist: a distributed trainer for universal weakly supervised segmentation (SPML)."""

__version__ = "0.1.0"
