"""Measure the variance of the gradients of methods at a run's scene: `python pipelines/probe.py --help`."""

import sys

if __name__ == "__main__":
    try:
        from steindreamer.pipelines.cli.probe import main
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error}; install first, in the repository's folder: pip install -e .")
    sys.exit(main())
