"""Run shell commands out of a dirq, which is a library: the consumer of its documentation.

Runs in dirq's own environment, as `python dirq_jobs.py add` with a command on each line of its
input, `python dirq_jobs.py work [--drain]` and `python dirq_jobs.py left`. The library syncs
nothing; with PEER_FORM=synced this program makes durable what it has added and removed.
"""

import os
import subprocess
import sys
import time

from dirq.QueueSimple import QueueSimple


def sync(path: str) -> None:
    """Make a file or a directory durable."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def main(action: str, *arguments: str) -> None:
    """Enqueue what comes, run what is there, or tell what is left."""
    path = os.environ["PEER_FOLDER"] + "/dirq"
    is_synced = os.environ["PEER_FORM"] == "synced"
    queue = QueueSimple(path)
    if action == "add":
        for line in sys.stdin:
            name = queue.add(line.rstrip("\n"))
            if is_synced:
                sync(f"{path}/{name}")
                sync(os.path.dirname(f"{path}/{name}"))
    elif action == "left":
        sys.stdout.write(f"{queue.count()}\n")
    else:
        queue.purge()  # releases what was locked for more than 600 s
        while True:
            for name in queue:
                if not queue.lock(name):
                    continue
                command = queue.get(name)
                subprocess.run(command, shell=True, check=True, stdin=subprocess.DEVNULL)
                queue.remove(name)
                if is_synced:
                    sync(os.path.dirname(f"{path}/{name}"))
            if "--drain" in arguments:
                return
            time.sleep(0.1)


if __name__ == "__main__":
    main(*sys.argv[1:])
