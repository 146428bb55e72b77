"""What ``queuectl config`` prints, refuses and writes."""

import json
import stat
from typing import Any

import pytest
from tests.cli.conftest import Run
from tests.cli.placing import Placing

from queuectl.config import JOB_KEYS, KEYS, Settings, settings_document

DEFAULT_TABLE = """\
KEY             VALUE    SOURCE
max-retries     3        default
backoff-base    2        default
backoff-max     1h       default
backoff-jitter  0        default
timeout         none     default
kill-grace      10s      default
priority        5        default
retry-on        any      default
no-retry-on     none     default
keep-completed  forever  default
keep-logs       forever  default
"""


def test_every_setting_is_listed_without_a_store(run: Run) -> None:
    """The defaults can be seen before anything is made, and looking makes nothing."""
    assert run("config", "list") == (0, DEFAULT_TABLE, "")
    code, stdout, stderr = run("config", "list", "--json")
    assert (code, stderr) == (0, "")
    assert json.loads(stdout) == {
        "max-retries": 3,
        "backoff-base": 2.0,
        "backoff-max": 3600.0,
        "backoff-jitter": 0.0,
        "timeout": None,
        "kill-grace": 10.0,
        "priority": 5,
        "retry-on": None,
        "no-retry-on": None,
        "keep-completed": None,
        "keep-logs": None,
    }
    assert run("config", "get", "backoff-max") == (0, "1h\n", "")
    assert run("config", "unset", "backoff-max") == (0, "", "")
    assert not run.store_dir.exists()


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("max-retries", "0"),
        ("max-retries", "1000000"),
        ("backoff-base", "1.5"),
        ("backoff-max", "90m"),
        ("backoff-jitter", "0.25"),
        ("timeout", "36525d"),
        ("kill-grace", "90"),
        ("priority", "0"),
        ("retry-on", "75"),
        ("retry-on", "any"),
        ("no-retry-on", "1,64-78"),
        ("keep-completed", "30d"),
        ("keep-logs", "forever"),
    ],
)
def test_what_is_set_is_what_get_prints(run: Run, key: str, text: str) -> None:
    """A value comes back bare, as it was written, and goes with unset."""
    default = run("config", "get", key)
    assert run("config", "set", key, text) == (0, "", "")
    assert run("config", "get", key) == (0, f"{text}\n", "")
    assert f"{key}  " in run("config", "list").stdout
    row = next(line for line in run("config", "list").stdout.splitlines() if line.startswith(key))
    assert row.split() == [key, text, "set"]
    assert run("config", "unset", key) == (0, "", "")
    assert run("config", "get", key) == default


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("max-retries", "7", 7),
        ("backoff_max", "15m", 900.0),
        ("timeout", "none", None),
        ("no-retry-on", "1, 64-78", "1,64-78"),
        ("retry-on", "any", None),
    ],
)
def test_get_prints_json_too(run: Run, key: str, text: str, value: object) -> None:
    """The same value as in the list, alone: a number, a string or null."""
    listed = json.loads(run("config", "list", "--json").stdout)[key.replace("_", "-")]
    assert json.loads(run("config", "get", key, "--json").stdout) == listed
    run("config", "set", key, text)
    code, stdout, stderr = run("config", "get", key, "--json")
    assert (code, json.loads(stdout), stderr) == (0, value, "")


def test_underscores_are_dashes(run: Run) -> None:
    """Either way of writing a key is the same key, in a file that a hand wrote, too."""
    assert run("config", "set", "max_retries", "7") == (0, "", "")
    path = run.store_dir / "config.json"
    assert json.loads(path.read_text()) == {"max-retries": "7"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text('{"max_retries": 8}')
    assert run("config", "get", "max-retries") == (0, "8\n", "")
    assert run("config", "set", "max-retries", "9") == (0, "", "")
    assert json.loads(path.read_text()) == {"max-retries": "9"}
    path.write_text('{"max_retries": 8}')
    assert run("config", "unset", "max-retries") == (0, "", "")
    assert json.loads(path.read_text()) == {}


WHOLE = "must be a whole number from"
CODES = "must be exit codes from 1 to 255 and ranges of them, such as 1,64-78, or"
DURATION = "must be a duration above 0 and up to 100 years, such as 90s, 15m or 1h30m"


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("max-retries", "-1", f"max-retries {WHOLE} 0 to 1000000, not '-1'"),
        ("max_retries", "many", f"max-retries {WHOLE} 0 to 1000000, not 'many'"),
        ("priority", "10", f"priority {WHOLE} 0 to 9, not '10'"),
        ("backoff-base", "0.5", "backoff-base must be a number from 1 to 1000000, not '0.5'"),
        ("backoff-base", "nan", "backoff-base must be a number from 1 to 1000000, not 'nan'"),
        ("backoff-jitter", "-0.5", "backoff-jitter must be a number from 0 to 1, not '-0.5'"),
        ("kill-grace", "0", f"kill-grace {DURATION}, not '0'"),
        ("timeout", "36526d", f"timeout {DURATION}, or none, not '36526d'"),
        ("timeout", "", f"timeout {DURATION}, or none, not ''"),
        ("retry-on", "none", f"retry-on {CODES} any, not 'none'"),
        ("no-retry-on", "any", f"no-retry-on {CODES} none, not 'any'"),
        ("keep-logs", "\x1b[2J", rf"keep-logs {DURATION}, or forever, not '\x1b[2J'"),
        (
            "max-retry",
            "1",
            "no such config key: 'max-retry'; did you mean max-retries? The keys are "
            + ", ".join(KEYS),
        ),
    ],
)
def test_a_bad_value_is_refused_and_nothing_is_written(
    run: Run, key: str, text: str, message: str
) -> None:
    """The error says what is allowed, and neither a store nor a file comes of it."""
    assert run("config", "set", key, text) == (78, "", f"Error: {message}\n")
    assert not run.store_dir.exists()
    run("config", "set", "max-retries", "7")
    before = (run.store_dir / "config.json").read_bytes()
    assert run("config", "set", key, text).exit_code == 78
    assert (run.store_dir / "config.json").read_bytes() == before


@pytest.mark.parametrize("words", [("get", "zzz"), ("unset", "zzz"), ("set", "zzz", "1")])
def test_an_unknown_key_is_refused(run: Run, words: tuple[str, ...]) -> None:
    """A key that does not exist has no value, and the error lists those that do."""
    keys = ", ".join(KEYS)
    refused = (78, "", f"Error: no such config key: 'zzz'; the keys are {keys}\n")
    assert run("config", *words) == refused


@pytest.mark.parametrize(
    "data",
    [b"{", b"", b"[]", b'{"max-retries": "x"}', b'{"nope": 1}', b'{"a": NaN}', b"\xff", b"null"],
)
@pytest.mark.parametrize(
    "words",
    [
        ("config", "list"),
        ("config", "list", "--json"),
        ("config", "get", "timeout"),
        ("enqueue", "a"),
    ],
    ids=" ".join,
)
def test_a_broken_file_is_named(
    run: Run, place: Placing, data: bytes, words: tuple[str, ...]
) -> None:
    """A config.json that a hand has broken stops whoever needs it, and is left as it is."""
    path = run.store_dir / "config.json"
    path.write_bytes(data)
    path.chmod(0o600)
    code, stdout, stderr = run(*words)
    assert (code, stdout) == (78, "")
    assert stderr.startswith("Error: ")
    assert str(path) in stderr
    assert stderr.count("\n") == 1
    assert path.read_bytes() == data
    assert list((run.store_dir / "pending").iterdir()) == []


def test_a_bad_value_in_the_file_can_be_repaired(run: Run, place: Placing) -> None:
    """Setting or unsetting the key that is wrong is the way out."""
    path = run.store_dir / "config.json"
    path.write_text('{"max-retries": "many", "timeout": "5m"}')
    assert run("config", "get", "timeout").exit_code == 78
    assert run("config", "set", "max-retries", "4") == (0, "", "")
    assert run("config", "get", "timeout") == (0, "5m\n", "")
    path.write_text('{"max-retries": "many", "timeout": "5m"}')
    assert run("config", "unset", "max-retries") == (0, "", "")
    assert run("config", "get", "timeout") == (0, "5m\n", "")


def test_changing_the_config_does_not_change_a_job(run: Run) -> None:
    """A job keeps the limits that it was enqueued with."""
    run("enqueue", "true", "--id", "a")
    run("config", "set", "max-retries", "9")
    (path,) = (run.store_dir / "pending").iterdir()
    assert json.loads(path.read_bytes())["max_retries"] == 3


def test_the_help_names_every_setting(run: Run) -> None:
    """It says which of them a job takes, as the program has them."""
    text = " ".join(run("config", "--help").stdout.split())
    assert "A job takes max-retries, timeout, priority, retry-on and no-retry-on when it" in text
    for key, value in settings_document(Settings()).items():
        assert f"{key} ({value})" in text


def test_a_job_takes_the_settings_that_the_help_names(run: Run) -> None:
    """Each of them changes the next job, and no other setting does."""
    values = dict.fromkeys(KEYS, "77") | {"backoff-jitter": "1", "priority": "8"}

    def new_job() -> list[Any]:
        document = json.loads(run("show", run("enqueue", "x").stdout.strip(), "--json").stdout)
        return [document.get(key.replace("-", "_")) for key in KEYS]

    before, taken = new_job(), []
    for key, value in values.items():
        assert run("config", "set", key, value)[0] == 0
        if new_job() != before:
            taken.append(key)
        run("config", "unset", key)
    assert tuple(taken) == JOB_KEYS


def test_a_subcommand_is_answered_with_the_nearest(run: Run) -> None:
    """A mistyped subcommand is one line, too."""
    assert run("config", "unst") == (
        2,
        "",
        "Error: No such command 'unst'. Did you mean 'unset'? Try 'queuectl config --help'.\n",
    )
