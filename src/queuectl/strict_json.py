"""JSON as everybody reads it: no NaN, no duplicate key, no number out of range, no deep nesting."""

import json
import sys
from typing import Any, NoReturn

from queuectl.errors import BadDocument, shorten

MAX_NESTING = 100  # whatever the stack allows: what one process reads, all can read and write

to_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def parse_object(data: bytes | str) -> dict[str, Any]:
    """Return the JSON object that a document holds. Raises: BadDocument for anything else."""
    try:
        if isinstance(data, bytes):
            data = data.decode()
        value = _from_json(data)
    except RecursionError as error:
        raise _too_deep() from error
    except UnicodeDecodeError as error:
        raise BadDocument(f"not a job document: not UTF-8 at byte {error.start}") from error
    except (json.JSONDecodeError, _NotJson) as error:
        raise BadDocument(f"not a job document: bad JSON: {error}") from error
    except ValueError as error:  # the only other one is Python's limit for whole numbers
        most = sys.get_int_max_str_digits()
        raise BadDocument(
            f"not a job document: bad JSON: a number has more than {most} digits"
        ) from error
    if not isinstance(value, dict):
        raise BadDocument("not a job document: not a JSON object")
    # A document with fewer brackets cannot be deeper, and nearly all have fewer.
    if data.count("[") + data.count("{") > MAX_NESTING and _is_deep(value):
        raise _too_deep()
    return value


class _NotJson(ValueError):
    """Text that Python reads as JSON, and nobody else."""


def _too_deep() -> BadDocument:
    return BadDocument(f"not a job document: nested more than {MAX_NESTING} deep")


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(MAX_NESTING):
        below: list[object] = []
        for each in level:
            if isinstance(each, dict):
                below += each.values()
            elif isinstance(each, list):
                below += each
        level = below
    return any(isinstance(each, dict | list) for each in level)


def _refuse_constant(name: str) -> NoReturn:
    raise _NotJson(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value - value != 0:  # 1e999 is read as infinity, which could not be written again
        raise _NotJson(f"{text[:60]} is out of range")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _NotJson(f"duplicate key {shorten(key)}")
            seen.add(key)
    return value


_from_json = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique_keys
).decode
