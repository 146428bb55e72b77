"""The ``queuectl`` command: its start and its end, both made short."""

import gc
import os
import sys
from contextlib import suppress
from typing import NoReturn


def main() -> NoReturn:
    """Run the command on the command line, and end the process with its exit code."""
    if sys.getfilesystemencoding() != "utf-8":
        from queuectl.cli.locale import restart

        restart()
    if sys.flags.utf8_mode or "PYTHONIOENCODING" in os.environ:
        from queuectl.cli.locale import prepare_output

        prepare_output()
    # Imports make no garbage, and their objects live to the end: collecting would take a sixth of
    # the time of an enqueue.
    gc.disable()
    from queuectl.cli.group import run

    gc.freeze()
    gc.enable()
    exit_code = run()
    with suppress(AttributeError, OSError):  # it is closed, or its reader is gone
        sys.stderr.flush()
    # The kernel closes whatever is open. The interpreter would first free every object, which takes
    # a tenth of the time of an enqueue.
    os._exit(exit_code)
