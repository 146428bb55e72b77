"""Show how far a command is, without waiting for the terminal.

The bar is drawn while pending.lock is held, which workers need, too: a terminal that Ctrl-S has
stopped must not stop them.
"""

from io import TextIOBase
from typing import TextIO

from queuectl.outlet import Outlet


class Screen(TextIOBase):
    """A terminal that is written to where it takes it at once; what it does not take is dropped."""

    def __init__(self, terminal: TextIO) -> None:
        """Take the terminal, which is left as it is."""
        self._encoding = terminal.encoding
        self._outlet = Outlet(terminal.fileno())

    def isatty(self) -> bool:
        """Return that it is a terminal."""
        return True

    def write(self, text: str) -> int:
        """Write or drop a text."""
        self._outlet.write(text.encode(self._encoding, "backslashreplace"), lambda _: b"")
        return len(text)

    def close(self) -> None:
        """Free what was opened."""
        self._outlet.close()
        super().close()
