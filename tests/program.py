"""How tests start the program, and what they let it inherit."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

# Put before a command, these replace themselves by it.
IGNORING_SIGCHLD = ("sh", "-c", 'trap "" CHLD; exec "$@"', "sh")
FEW_DESCRIPTORS = ("sh", "-c", 'ulimit -n 256; exec "$@"', "sh")
LATIN = "de_DE.ISO-8859-1"
HAS_LOCALEDEF = (
    shutil.which("localedef") is not None
    and Path("/usr/share/i18n/charmaps").is_dir()  # Debian's package locales
)

# Whoever starts the tests may ignore it, but the tests need it; xdist hands the variable on.
if signal.signal(signal.SIGCHLD, signal.SIG_DFL) == signal.SIG_IGN:
    os.environ["QUEUECTL_TEST_SIGCHLD"] = "ignore"
PREFIX = IGNORING_SIGCHLD if os.environ.get("QUEUECTL_TEST_SIGCHLD") == "ignore" else ()
QUEUECTL = (*PREFIX, sys.executable, "-m", "queuectl")


def make_locale(directory: Path, name: str) -> None:
    """Make a locale such as de_DE.ISO-8859-1, for programs that have the directory as LOCPATH."""
    language, _, charmap = name.partition(".")
    # It warns of what it does not like in its own sources.
    subprocess.run(
        ["localedef", "-c", "-i", language, "-f", charmap, directory / name],
        check=False,
        capture_output=True,
    )
    assert (directory / name / "LC_CTYPE").exists()


def in_locale(directory: Path, name: str) -> tuple[str, ...]:
    """Return what runs a command with the characters of a locale, and messages in English."""
    return ("env", "-u", "LC_ALL", f"LOCPATH={directory}", f"LC_CTYPE={name}")
