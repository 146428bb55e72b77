"""The program as a process of its own, and the documents that it leaves in a store."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HINT = " Try 'queuectl enqueue --help'."


def snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    """Return every path under a directory with its mode and what it holds."""
    return {
        str(path.relative_to(root)): (
            path.lstat().st_mode,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in root.rglob("*")
        if path.name != "pending.lock"  # an empty file that is made when it is first locked
    }


def pending(store_dir: Path) -> list[dict[str, Any]]:
    """Return the documents that are pending, in the order in which they will run."""
    return [json.loads(path.read_bytes()) for path in sorted((store_dir / "pending").iterdir())]


def only_job(store_dir: Path) -> dict[str, Any]:
    """Return the one document that is pending."""
    (document,) = pending(store_dir)
    return document


def queuectl(*words: str, store_dir: Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the program as a process of its own."""
    env = {**os.environ, "QUEUECTL_STORE": str(store_dir)}
    command = [sys.executable, "-m", "queuectl", *words]
    return subprocess.run(command, check=False, stderr=subprocess.PIPE, env=env, **options)
