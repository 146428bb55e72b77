"""Run shell commands by rq: the function that its worker imports, and what enqueues it.

Runs in rq's own environment, also as `python rq_jobs.py add` with a command on each line of its
input, as `python rq_jobs.py latency FIFO GAP...` and as `python rq_jobs.py left`.
"""

import os
import subprocess
import sys
import time


def run_command(command: str) -> None:
    """Run a command, as queuectl does for one of its own."""
    subprocess.run(command, shell=True, check=True, stdin=subprocess.DEVNULL)


def main(action: str, *arguments: str) -> None:
    """Enqueue what comes, tell what is left, or time how long a worker needs to begin."""
    from redis import Redis
    from rq import Queue

    queue = Queue(connection=Redis.from_url(os.environ["PEER_URL"]))
    name = "rq_jobs.run_command"
    if action == "add":
        commands = [line.rstrip("\n") for line in sys.stdin]
        if len(commands) == 1:
            queue.enqueue(name, commands[0])
            return
        for start in range(0, len(commands), 1000):
            some = commands[start : start + 1000]
            queue.enqueue_many([Queue.prepare_data(name, (command,)) for command in some])
    elif action == "left":
        registries = (queue.started_job_registry, queue.failed_job_registry)
        left = queue.count + sum(len(each.get_job_ids(cleanup=False)) for each in registries)
        sys.stdout.write(f"{left}\n")
    else:
        fifo, *gaps = arguments
        reader = os.open(fifo, os.O_RDWR)
        for gap in gaps:
            time.sleep(float(gap))
            queue.enqueue(name, f"echo > {fifo}")
            begun = time.perf_counter()
            os.read(reader, 16)
            sys.stdout.write(f"{time.perf_counter() - begun}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
