"""The environment variables that commands run with."""

import os
from contextlib import suppress

from queuectl.job import Job

_COERCED_LOCALES = (b"C.UTF-8", b"C.utf8", b"UTF-8")


def inherited_environment(store_location: str) -> dict[bytes, bytes]:
    """Return what all commands of a store inherit: our environment without options of queuectl."""
    env = {
        name: value
        for name, value in _environment_as_given().items()
        if not name.startswith(b"QUEUECTL_")
    }
    env[b"QUEUECTL_STORE"] = os.fsencode(store_location)
    return env


def job_environment(inherited: dict[bytes, bytes], job: Job, attempt: int) -> dict[bytes, bytes]:
    """Return the environment of one attempt of a job."""
    env = dict(inherited)
    for name, value in job.env.items():
        env[name.encode()] = value.encode("utf-8", "surrogateescape")
    env[b"QUEUECTL_JOB_ID"] = job.id.encode()
    env[b"QUEUECTL_ATTEMPT"] = b"%d" % attempt
    env[b"QUEUECTL_MAX_RETRIES"] = b"%d" % job.max_retries
    env[b"QUEUECTL_STORE"] = inherited[b"QUEUECTL_STORE"]
    return env


def _environment_as_given() -> dict[bytes, bytes]:
    """Return the environment that this process was started with, without Python's change to it.

    In the C locale Python sets LC_CTYPE for itself and all its children. A command must not notice
    Python. Source: PEP 538; environ in proc(5), Linux only.
    """
    env = dict(os.environb)
    if env.get(b"LC_CTYPE") in _COERCED_LOCALES:
        with suppress(OSError), open("/proc/self/environ", "rb") as file:
            given = dict(each.partition(b"=")[::2] for each in file.read().split(b"\0"))
            del env[b"LC_CTYPE"]
            if b"LC_CTYPE" in given:
                env[b"LC_CTYPE"] = given[b"LC_CTYPE"]
    return env
