"""`python -m resfit` is the command line."""

import sys

from resfit.cli import main

if __name__ == "__main__":
    sys.exit(main())
