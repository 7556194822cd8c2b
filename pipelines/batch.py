"""Assets for many prompts: `python pipelines/batch.py --help`."""

import sys

if __name__ == "__main__":
    try:
        from steindreamer.pipelines.cli.batch import main
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error}; install first, in the repository's folder: pip install -e .")
    sys.exit(main())
