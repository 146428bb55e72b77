"""Be the ``queuectl`` command: start quickly, and leave quickly."""

import gc
import os
import sys
from contextlib import suppress
from typing import NoReturn


def main() -> NoReturn:
    """Run the command that the command line names, and end the process with its exit code."""
    if sys.getfilesystemencoding() != "utf-8":
        from queuectl.cli.locale import restart

        restart()
    if sys.flags.utf8_mode or "PYTHONIOENCODING" in os.environ:
        from queuectl.cli.locale import prepare_output

        prepare_output()
    # Imports make no garbage, and what they make lives to the end: looking through it for garbage
    # would take a sixth of the time of an enqueue.
    gc.disable()
    from queuectl.cli.group import run

    gc.freeze()
    gc.enable()
    exit_code = run()
    with suppress(AttributeError, OSError):  # it is closed, or nobody reads it any more
        sys.stderr.flush()
    # Nothing is open that the kernel would not close, and the interpreter would take everything to
    # pieces first, which takes a tenth of the time of an enqueue.
    os._exit(exit_code)
