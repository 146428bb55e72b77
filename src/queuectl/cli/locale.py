"""Hold text as UTF-8 inside, whatever the locale is, so that its bytes stay as they were typed.

Python decodes arguments, paths and the environment by the locale's encoding, and documents are in
UTF-8: a word that was decoded by the one and encoded by the other is another word. In Python's
UTF-8 mode, which is the rule from Python 3.15 on, there is one encoding, and a byte that is no
UTF-8 survives in it as a lone surrogate. That mode can only be chosen when Python starts.
"""

import os
import sys
from _locale import getencoding

_EXIT_USAGE = 2


def restart() -> None:
    """Start the program again in UTF-8 mode, in this process; return where that is no use."""
    if sys.flags.utf8_mode or not sys.executable:
        return
    os.execv(sys.executable, [os.fsencode(sys.executable), b"-X", b"utf8", *_arguments()[1:]])


def _arguments() -> list[bytes]:
    """Return what this process was started with, byte for byte."""
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
    """Write in the encoding that the user reads, and escape what it does not have."""
    asked_for = "PYTHONIOENCODING" in os.environ or os.environ.get("PYTHONUTF8") == "1"
    for stream in filter(None, (sys.stdout, sys.stderr)):
        # In the C locale Python writes UTF-8, since that is what people have.
        encoding = stream.encoding if asked_for or _is_c(getencoding()) else getencoding()
        if not _is_utf8(encoding):
            stream.reconfigure(encoding=encoding, errors="backslashreplace")


def _is_c(encoding: str) -> bool:
    return encoding.upper() in ("ANSI_X3.4-1968", "US-ASCII", "646", "ASCII")


def _is_utf8(encoding: str) -> bool:
    return encoding.lower().replace("_", "-") in ("utf-8", "utf8")
