"""The command line: `bulkrestart`, or `python -m bulkrestart`."""

import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line on the arguments of the process, and end the process with its exit code."""
    # Not by sys.exit: the interpreter waits for threads first, such as one that looks a name up, and a signal in that
    # time changes the exit code.
    os._exit(_main())


def _main() -> int:
    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]
    try:
        # An exception that a signal raises during an import may come out as another one, or be swallowed.
        for number in numbers:
            signal.signal(number, _leave)
        from bulkrestart.cli.app import run

        for number in numbers:
            signal.signal(number, signal.default_int_handler)
        return run()
    except KeyboardInterrupt:
        return _interrupted()
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        _say("the command line needs typer: pip install 'bulkrestart[cli]'")
        return 2
    except (OSError, RuntimeError) as error:
        # A module cannot be read, or a thread cannot start; `run` reports all that comes later.
        _say(f"cannot start: {error}; check the limits of this machine (ulimit -a)")
        return 2


def _leave(*_: object) -> None:
    os._exit(_interrupted())


def _interrupted() -> int:
    _say("interrupted; nothing was sent")
    return 130


def _say(message: str) -> None:
    # None: the process was started without (`2>&-`). A stream that fails must not change the exit code.
    if sys.stderr is not None:
        with suppress(OSError):
            sys.stderr.write(f"bulkrestart: {message}\n")


if __name__ == "__main__":
    main()
