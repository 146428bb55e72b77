"""The settings: what each may be, and how it is written."""

from typing import Any

import pytest

from queuectl.config import (
    KEYS,
    Settings,
    field_name,
    format_value,
    parse_value,
    read_settings,
    settings_document,
)
from queuectl.errors import ConfigError


def test_the_defaults_are_those_of_the_reference() -> None:
    """A store in which nothing was set works by these."""
    assert settings_document(Settings()) == {
        "max-retries": "3",
        "backoff-base": "2",
        "backoff-max": "1h",
        "backoff-jitter": "0",
        "timeout": "none",
        "kill-grace": "10s",
        "priority": "5",
        "retry-on": "any",
        "no-retry-on": "none",
        "keep-completed": "forever",
        "keep-logs": "forever",
    }
    assert tuple(settings_document(Settings())) == KEYS


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("max-retries", "0", 0),
        ("max_retries", "1000000", 1_000_000),
        ("backoff-base", "1", 1.0),
        ("backoff-base", "1.5", 1.5),
        ("backoff-max", "90", 90.0),
        ("backoff-max", "36525d", 3155760000.0),
        ("backoff-jitter", "1", 1.0),
        ("backoff-jitter", "0.25", 0.25),
        ("timeout", "none", None),
        ("timeout", "None", None),
        ("timeout", "2h", 7200.0),
        ("kill-grace", "0.5", 0.5),
        ("priority", "9", 9),
        ("retry-on", " ANY ", None),
        ("no-retry-on", "none", None),
        ("no_retry_on", "1, 64 - 78", "1,64-78"),
        ("keep-completed", "forever", None),
        ("keep-completed", "7d", 604800.0),
        ("keep_logs", "1d", 86400.0),
    ],
)
def test_a_value_is_read_and_written_back(key: str, text: str, value: object) -> None:
    """Every allowed value, the bounds included, is what it says, and survives being written."""
    assert parse_value(key, text) == value
    assert parse_value(key, format_value(key, value)) == value


@pytest.mark.parametrize(
    ("key", "allowed", "texts"),
    [
        ("max-retries", "must be a whole number from 0 to 1000000",
         ["-1", "1000001", "1.5", "", "x", "1e3", "٣", "9" * 5000]),
        ("backoff-base", "must be a number from 1 to 1000000",
         ["0.9", "-2", "nan", "inf", "1e7", "two", ""]),
        ("backoff-max", "must be a duration above 0 and up to 100 years, such as 90s, 15m or 1h30m",
         ["0", "-1", "36526d", "forever", "none", ""]),
        ("backoff-jitter", "must be a number from 0 to 1", ["-0.1", "1.1", "nan", "x"]),
        ("timeout", "such as 90s, 15m or 1h30m, or none", ["0", "forever", "1h30"]),
        ("kill-grace", "must be a duration above 0 and up to 100 years", ["0", "none"]),
        ("priority", "must be a whole number from 0 to 9", ["10", "-1", "high"]),
        ("keep-completed", "such as 90s, 15m or 1h30m, or forever", ["0", "none"]),
        ("keep-logs", "such as 90s, 15m or 1h30m, or forever", ["0", "none"]),
    ],
)  # fmt: skip
def test_a_bad_value_is_refused_with_what_is_allowed(
    key: str, allowed: str, texts: list[str]
) -> None:
    """The error names the key, what is allowed, and what was given, on one line of some length."""
    for text in texts:
        with pytest.raises(ConfigError) as caught:
            parse_value(key, text)
        message = str(caught.value)
        assert message.startswith(f"{key} must be")
        assert allowed in message
        assert f", not {text!r}"[:40] in message
        assert len(message) < 200


def test_an_unknown_key_is_answered_with_the_nearest_and_all() -> None:
    """A mistyped key is an error that helps."""
    keys = ", ".join(KEYS)
    with pytest.raises(ConfigError) as caught:
        field_name("max-retry")
    assert str(caught.value) == (
        f"no such config key: 'max-retry'; did you mean max-retries? The keys are {keys}"
    )
    with pytest.raises(ConfigError) as caught:
        field_name("zzz")
    assert str(caught.value) == f"no such config key: 'zzz'; the keys are {keys}"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"max-retries": True}, "f.json: 'max-retries' is True; it must be a text"),
        ({"max-retries": None}, "f.json: 'max-retries' is None; it must be a text"),
        ({"timeout": [1]}, "f.json: 'timeout' is [1]; it must be a text"),
        ({"max-retries": "many"},
         "f.json: max-retries must be a whole number from 0 to 1000000, not 'many'"),
        ({"nope": "1"}, "f.json: no such config key: 'nope'; the keys are " + ", ".join(KEYS)),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong_is_named(document: dict[str, Any], message: str) -> None:
    """What a hand has broken is refused with the file and the key."""
    with pytest.raises(ConfigError) as caught:
        read_settings(document, "f.json")
    assert str(caught.value) == message


def test_a_file_may_hold_numbers_and_either_kind_of_dash() -> None:
    """A hand may write what JSON has, and the rest is by default."""
    settings = read_settings({"max_retries": 7, "backoff-base": 1.5, "timeout": "15m"}, "f.json")
    assert settings == Settings(max_retries=7, backoff_base=1.5, timeout=900.0)
