"""A package for an engine from any mesh file: `python pipelines/finish.py --help`."""

import sys

if __name__ == "__main__":
    try:
        from steindreamer.pipelines.cli.finish import main
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error}; install first, in the repository's folder: pip install -e .")
    sys.exit(main())
