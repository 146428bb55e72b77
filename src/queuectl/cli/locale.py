"""Text that is UTF-8 inside, whatever the locale, so that its bytes stay as they were typed.

Python decodes arguments, paths and the environment in the locale's encoding, and documents are
UTF-8: a word decoded in one and encoded in the other is another word. Python's UTF-8 mode, the
default from 3.15 on, has one encoding, in which a byte that is not UTF-8 is a lone surrogate. It
can be chosen only when Python starts.
"""

import os
import sys
from _locale import getencoding

_EXIT_USAGE = 2


def restart() -> None:
    """Start the program again in UTF-8 mode, in this process; return if that would not help."""
    if sys.flags.utf8_mode or not sys.executable:
        return
    os.execv(sys.executable, [os.fsencode(sys.executable), b"-X", b"utf8", *_arguments()[1:]])


def _arguments() -> list[bytes]:
    """Return the arguments of this process, byte for byte."""
    try:
        with open("/proc/self/cmdline", "rb") as file:
            words = file.read().split(b"\0")[:-1]
    except OSError:  # there is no /proc
        words = []
    if len(words) == len(sys.orig_argv):
        return words
    try:
        # Not always what was typed: Python and the C library disagree on a few characters.
        return [os.fsencode(word) for word in sys.orig_argv]
    except UnicodeEncodeError:
        sys.stderr.write("Error: a word cannot be read in this locale; use one with UTF-8\n")
        raise SystemExit(_EXIT_USAGE) from None


def prepare_output() -> None:
    """Write in the user's encoding, and escape characters that it lacks."""
    is_chosen = "PYTHONIOENCODING" in os.environ or os.environ.get("PYTHONUTF8") == "1"
    for stream in filter(None, (sys.stdout, sys.stderr)):
        # In the C locale Python writes UTF-8, which most terminals show.
        has_c = getencoding().upper() in ("ANSI_X3.4-1968", "US-ASCII", "646", "ASCII")
        encoding = stream.encoding if is_chosen or has_c else getencoding()
        if encoding.lower().replace("_", "-") not in ("utf-8", "utf8"):
            stream.reconfigure(encoding=encoding, errors="backslashreplace")
