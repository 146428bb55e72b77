"""Run shell commands by huey: the program in which its documentation says to define a task.

Runs in huey's own environment, also as `python huey_jobs.py add` with a command on each line of
its input, and as `python huey_jobs.py latency FIFO GAP...`.
"""

import os
import subprocess
import sys
import time

from huey import FileHuey, SqliteHuey

folder = os.environ["PEER_FOLDER"]
huey = (
    FileHuey(path=f"{folder}/files")
    if os.environ["PEER_FORM"] == "file"
    else SqliteHuey(filename=f"{folder}/huey.db")
)


@huey.task()  # type: ignore[untyped-decorator]
def run_command(command: str) -> None:
    """Run a command, as queuectl does for one of its own."""
    subprocess.run(command, shell=True, check=True, stdin=subprocess.DEVNULL)


def main(action: str, *arguments: str) -> None:
    """Enqueue what comes, or time how long a worker needs to begin."""
    if action == "add":
        run_command.map(line.rstrip("\n") for line in sys.stdin)
        return
    fifo, *gaps = arguments
    reader = os.open(fifo, os.O_RDWR)
    for gap in gaps:
        time.sleep(float(gap))
        run_command(f"echo > {fifo}")
        start = time.perf_counter()
        os.read(reader, 16)
        sys.stdout.write(f"{time.perf_counter() - start}\n")


if __name__ == "__main__":
    # So that the consumer finds the task by the name under which it was enqueued.
    import huey_jobs

    huey_jobs.main(*sys.argv[1:])
