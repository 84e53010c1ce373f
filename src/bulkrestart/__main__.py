"""The command line: `bulkrestart`, or `python -m bulkrestart`."""

import sys


def main() -> int:
    """Run the command line on the arguments of the process, and return its exit code."""
    try:
        from bulkrestart.cli.app import run
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.stderr.write(f"bulkrestart: the command line needs {error.name}: pip install 'bulkrestart[cli]'\n")
        return 2
    return run()


if __name__ == "__main__":
    sys.exit(main())
