"""Check the files in the root of a store."""

import os
import time
from collections.abc import Iterator

from queuectl.config import parse_value
from queuectl.errors import BadDocument, ConfigError
from queuectl.store import files
from queuectl.store.doctor.case import ASIDE, Case, Finding, foreign
from queuectl.store.documents import STILL_BEING_WRITTEN_SECONDS
from queuectl.store.layout import DIRECTORIES, FILES, FOREIGN, FORMAT, ROOT
from queuectl.strict_json import parse_object


def check_root(case: Case) -> Iterator[Finding]:
    """Check the files in the root."""
    for name in list(case.directory.names(ROOT)):
        if name in DIRECTORIES or name in FOREIGN:
            continue
        if name not in FILES:
            yield foreign(ROOT, name)
        else:
            # A hand may stop the workers by `touch stop_workers`.
            yield from case.check_file(ROOT, name, any_mode=name == "stop_workers")
    if case.directory.format_problem:
        yield from _repair_format(case)
    yield from _check_config(case)
    yield from _check_stop(case)


def _repair_format(case: Case) -> Iterator[Finding]:
    advice = f"it must hold the number {FORMAT}"
    if case.directory.exists(ROOT, "format") and not case.is_ours(ROOT, "format"):
        yield Finding("bad format", "format", advice)
        return
    if case.repair:
        if "broken" in case.directory.format_problem:
            case.documents.set_aside(ROOT, "format", case.directory.format_problem)
        case.directory.write_root_file("format", f"{FORMAT}\n".encode())
    yield case.finding("bad format", "format", advice, "was written anew")


def _check_config(case: Case) -> Iterator[Finding]:
    try:
        case.core.settings.current()
        return
    except ConfigError:
        pass
    if not case.is_ours(ROOT, "config.json"):
        return
    with case.core.lock.held():
        try:
            case.core.settings.current()  # somebody has set it right meanwhile
        except ConfigError as error:
            if case.repair:
                good = _good_settings(case)
                case.documents.set_aside(ROOT, "config.json", str(error))
                case.core.settings.change(lambda _: good)
            path = f"{case.directory.location}/config.json"
            reason = str(error).removeprefix(path).lstrip(": ")
            done = f"{reason}; it {ASIDE}, what could be read was kept"
            yield case.finding("bad config", "config.json", reason, done)


def _good_settings(case: Case) -> dict[str, object]:
    good: dict[str, object] = {}
    try:
        document = case.core.settings.read()
    except ConfigError:
        return good
    for key, value in document.items():
        try:
            parse_value(key, str(value))
        except ConfigError:
            continue
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            good[key] = value
    return good


def _check_stop(case: Case) -> Iterator[Finding]:
    with files.closing(files.open_document(case.directory.root_fd, "stop_workers")) as fd:
        if fd is None:
            return
        age = time.time() - os.fstat(fd).st_mtime
        try:
            data = files.read_all(fd, 4096)
            if data.strip():
                parse_object(data)
        except BadDocument as error:
            if not 0 <= age < STILL_BEING_WRITTEN_SECONDS:
                yield case.set_apart(ROOT, "stop_workers", "bad request to stop", str(error))
