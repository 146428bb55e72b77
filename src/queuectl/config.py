"""Define the settings: their keys, defaults and what each may be.

The config file holds what a person has set, as texts or numbers; a key that is not there has its
default. A job takes those of ``JOB_KEYS`` when it is enqueued and keeps them; the rest belongs to
the workers.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from queuectl.clock import format_duration, parse_duration
from queuectl.codes import NO_RULE, check_codes
from queuectl.errors import ConfigError, UsageError, shorten
from queuectl.job import DEFAULT_PRIORITY, MAX_MAX_RETRIES, MAX_PRIORITY, Defaults


class Settings(NamedTuple):
    """Hold the value of every setting.

    Units: seconds; None for no timeout, for no rule about exit codes, and for keeping for ever.
    """

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

    def of_a_new_job(self, cwd: str, now: datetime) -> Defaults:
        """Return what a job gets that is enqueued now and says nothing itself."""
        limits = {name: getattr(self, field) for field, name in _OF_JOBS.items()}
        return Defaults(cwd=cwd, now=now, **limits)


# The settings that a job takes, by what they are called in a job.
_OF_JOBS = {
    "max_retries": "max_retries", "timeout": "timeout_seconds", "priority": "priority",
    "retry_on": "retry_on", "no_retry_on": "no_retry_on",
}  # fmt: skip
JOB_KEYS = tuple(field.replace("_", "-") for field in _OF_JOBS)


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return what reads a whole number in these bounds. It raises: UsageError that tells them."""
    bounds = f"of {least} or more" if most is None else f"from {least} to {most}"

    def parse(text: str) -> int:
        if text.isascii() and text.isdigit() and len(text) < 20:
            number = int(text)
            if least <= number and (most is None or number <= most):
                return number
        raise UsageError(f"must be a whole number {bounds}")

    return parse


def _number(least: float, most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            raise UsageError(f"must be a number from {least:.15g} to {most:.15g}")
        return value

    return parse


def _duration_or(word: str | None) -> Callable[[str], float | None]:
    def parse(text: str) -> float | None:
        if word is not None and text.strip().lower() == word:
            return None
        try:
            return parse_duration(text)
        except UsageError as error:
            also = f", or {word}" if word else ""
            raise UsageError(
                f"must be a duration above 0 and up to 100 years, such as 90s, 15m or 1h30m{also}"
            ) from error

    return parse


def _codes(rule: str) -> Callable[[str], str | None]:
    def parse(text: str) -> str | None:
        codes = check_codes(text, rule)
        return None if codes == NO_RULE[rule] else codes

    return parse


_PARSERS: dict[str, Callable[[str], Any]] = {
    "max_retries": whole_number(0, MAX_MAX_RETRIES),
    "backoff_base": _number(1, 1_000_000),
    "backoff_max": _duration_or(None),
    "backoff_jitter": _number(0, 1),
    "timeout": _duration_or("none"),
    "kill_grace": _duration_or(None),
    "priority": whole_number(0, MAX_PRIORITY),
    "retry_on": _codes("retry_on"),
    "no_retry_on": _codes("no_retry_on"),
    "keep_completed": _duration_or("forever"),
    "keep_logs": _duration_or("forever"),
}
_NONE_WORDS = {
    "timeout": "none", "keep_completed": "forever", "keep_logs": "forever", **NO_RULE,
}  # fmt: skip
_DURATIONS = {"backoff_max", "timeout", "kill_grace", "keep_completed", "keep_logs"}

KEYS = tuple(name.replace("_", "-") for name in _PARSERS)


def field_name(key: str) -> str:
    """Return the name of the setting that a key means; underscores are taken as dashes.

    Raises: ConfigError that lists the keys and names the nearest where there is no such key.
    """
    name = key.replace("-", "_")
    if name not in _PARSERS:
        from difflib import get_close_matches

        near = get_close_matches(key.replace("_", "-"), KEYS, 1)
        hint = f"did you mean {near[0]}? The" if near else "the"
        raise ConfigError(f"no such config key: {shorten(key)}; {hint} keys are {', '.join(KEYS)}")
    return name


def parse_value(key: str, text: str) -> Any:
    """Return the value that a text gives a key.

    Raises: ConfigError that says what is allowed.
    """
    try:
        return _PARSERS[field_name(key)](text)
    except UsageError as error:
        raise ConfigError(f"{key.replace('_', '-')} {error}, not {shorten(text)}") from error


def format_value(key: str, value: Any) -> str:
    """Return a value as ``config get`` prints it and ``config set`` takes it."""
    name = field_name(key)
    if value is None:
        return _NONE_WORDS[name]
    if isinstance(value, str):
        return value
    return format_duration(value) if name in _DURATIONS else f"{value:.15g}"


def read_settings(document: Mapping[str, Any], where: str) -> Settings:
    """Return the settings that a config document holds, with the defaults for the rest.

    ``where`` names the file in messages. Raises: ConfigError that names it and the key.
    """
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
    """Return every setting as texts, by key, in the order in which they are listed."""
    return {
        name.replace("_", "-"): format_value(name, value)
        for name, value in settings._asdict().items()
    }
