"""Entry point of `python -m steindreamer`, equivalent to the command `steindreamer`."""

import sys

from steindreamer.pipelines.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
