"""The settings: their keys, defaults and possible values.

The config file holds what a person has set, as texts or numbers; any other key has its default. A
job takes the settings of ``JOB_KEYS`` when it is added, and keeps them; the rest belongs to the
workers.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from queuectl.clock import format_duration, parse_duration
from queuectl.codes import NO_RULE, check_codes
from queuectl.errors import ConfigError, UsageError, shorten
from queuectl.job import DEFAULT_PRIORITY, MAX_MAX_RETRIES, MAX_PRIORITY


class Settings(NamedTuple):
    """All settings, in seconds; None is no timeout, no rule about exit codes, and for ever."""

    max_retries: int = 3
    backoff_base: float = 2.0
    backoff_max: float = 3600.0
    backoff_jitter: float = 0.0
    timeout: float | None = None
    kill_grace: float = 10.0
    priority: int = DEFAULT_PRIORITY
    retry_on: str | None = None
    no_retry_on: str | None = None
    keep_completed: float | None = None
    keep_logs: float | None = None


class Defaults(NamedTuple):
    """What a job gets that says nothing: the settings of JOB_KEYS, a directory, the time."""

    settings: Settings
    cwd: str
    now: datetime


JOB_KEYS = ("max-retries", "timeout", "priority", "retry-on", "no-retry-on")


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return a parser of whole numbers in these bounds. It raises: UsageError with the bounds."""
    bounds = f"of {least} or more" if most is None else f"from {least} to {most}"

    def parse(text: str) -> int:
        if text.isascii() and text.isdigit() and len(text) < 20:
            number = int(text)
            if least <= number and (most is None or number <= most):
                return number
        raise UsageError(f"must be a whole number {bounds}")

    return parse


class _Kind(NamedTuple):
    """How the value of a setting is read and written; ``none`` is the word for None."""

    parse: Callable[[str], Any]
    none: str | None = None
    write: Callable[[Any], str] = "{:.15g}".format


def _number(least: float, most: float) -> _Kind:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            raise UsageError(f"must be a number from {least:.15g} to {most:.15g}")
        return value

    return _Kind(parse)


def _duration(none: str | None = None) -> _Kind:
    def parse(text: str) -> float:
        try:
            return parse_duration(text)
        except UsageError as error:
            also = f", or {none}" if none else ""
            raise UsageError(
                f"must be a duration above 0 and up to 100 years, such as 90s, 15m or 1h30m{also}"
            ) from error

    return _Kind(parse, none, format_duration)


def _codes(rule: str) -> _Kind:
    return _Kind(partial(check_codes, rule=rule), NO_RULE[rule], str)


_KINDS = {
    "max_retries": _Kind(whole_number(0, MAX_MAX_RETRIES)),
    "backoff_base": _number(1, 1_000_000),
    "backoff_max": _duration(),
    "backoff_jitter": _number(0, 1),
    "timeout": _duration("none"),
    "kill_grace": _duration(),
    "priority": _Kind(whole_number(0, MAX_PRIORITY)),
    "retry_on": _codes("retry_on"),
    "no_retry_on": _codes("no_retry_on"),
    "keep_completed": _duration("forever"),
    "keep_logs": _duration("forever"),
}
KEYS = tuple(name.replace("_", "-") for name in _KINDS)


def field_name(key: str) -> str:
    """Return the field of Settings that a key means. Raises: ConfigError that lists the keys."""
    name = key.replace("-", "_")
    if name not in _KINDS:
        from difflib import get_close_matches

        near = get_close_matches(key.replace("_", "-"), KEYS, 1)
        hint = f"did you mean {near[0]}? The" if near else "the"
        raise ConfigError(f"no such config key: {shorten(key)}; {hint} keys are {', '.join(KEYS)}")
    return name


def parse_value(key: str, text: str) -> Any:
    """Return the value that a text gives a key. Raises: ConfigError that says what is allowed."""
    kind = _KINDS[field_name(key)]
    try:
        return None if text.strip().lower() == kind.none else kind.parse(text)
    except UsageError as error:
        raise ConfigError(f"{key.replace('_', '-')} {error}, not {shorten(text)}") from error


def format_value(key: str, value: Any) -> str:
    """Return a value as ``config get`` prints it and ``config set`` takes it."""
    kind = _KINDS[field_name(key)]
    return kind.write(value) if value is not None else kind.none or ""


def read_settings(document: Mapping[str, Any], where: str) -> Settings:
    """Return the settings of a config document. Raises: ConfigError that begins with ``where``."""
    values: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ConfigError(f"{where}: {shorten(key)} is {shorten(value)}; it must be a text")
        try:
            values[field_name(key)] = parse_value(key, str(value))
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
    return Settings(**values)


def settings_document(settings: Settings) -> dict[str, str]:
    """Return every setting as text, by key, in the order in which they are listed."""
    return {
        name.replace("_", "-"): format_value(name, value)
        for name, value in settings._asdict().items()
    }
