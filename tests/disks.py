"""Mount small file systems for tests, in memory and from images."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.process.support import until

MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-m", "0"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
}
_LEAST_BYTES = {"ext4": 16 << 20, "xfs": 320 << 20, "btrfs": 128 << 20}


needs_mounts = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root on Linux may mount an image"
)


def make_image(kind: str, image: Path, least_bytes: int = 0) -> None:
    """Make an image of a file system; skip the test where the program for that is missing."""
    if shutil.which(MAKE[kind][0]) is None:
        pytest.skip(f"{MAKE[kind][0]} is not installed")
    with image.open("wb") as file:
        file.truncate(max(least_bytes, _LEAST_BYTES[kind]))
    subprocess.run([*MAKE[kind], str(image)], check=True, capture_output=True)


@contextmanager
def mounted(*words: str) -> Iterator[Path]:
    """Mount a file system, as the words after ``mount`` say, for the length of the block."""
    # Not below pytest's own directories: a run that is killed leaves its mount behind, and then
    # pytest could not clear them away in any later run.
    on = Path(tempfile.mkdtemp(prefix="queuectl-disk-"))
    try:
        done = subprocess.run(
            ["mount", *words, str(on)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0 and "loop" in done.stderr:
            pytest.skip(f"no loop device: {done.stderr.strip()}")
        if done.returncode != 0 and "unknown filesystem" in done.stderr:
            pytest.skip(f"the kernel lacks it: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        try:
            yield on
        finally:
            # What was killed a moment ago may still be closing its files.
            until(lambda: _unmount(on), f"{on} is not used any more")
    finally:
        on.rmdir()


def _unmount(on: Path) -> bool:
    return subprocess.run(["umount", str(on)], check=False, capture_output=True).returncode == 0


@contextmanager
def in_memory(*options: str) -> Iterator[Path]:
    """Mount a file system in memory."""
    with mounted("-t", "tmpfs", *(f"-o{each}" for each in options), "none") as disk:
        yield disk
