"""`python -m spml_dist` is `spml-dist`."""

from __future__ import annotations

import sys

from spml_dist.cli import main

if __name__ == "__main__":
    sys.exit(main())
