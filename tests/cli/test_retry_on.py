"""What --retry-on and --no-retry-on make of a job, and where the rules come from."""

import json
from typing import Any

import pytest
from tests.cli.conftest import Run


def enqueued(run: Run, *words: str) -> dict[str, Any]:
    """Enqueue a job and return its document."""
    code, job_id, stderr = run("enqueue", *words)
    assert (code, stderr) == (0, "")
    document: dict[str, Any] = json.loads(run("show", job_id.strip(), "--json").stdout)
    return document


def test_options_become_rules_of_the_job(run: Run) -> None:
    """They are recorded without spaces, and shown."""
    document = enqueued(run, "true", "--id", "a", "--retry-on", "75", "--no-retry-on", "1, 64-78")
    assert (document["retry_on"], document["no_retry_on"]) == ("75", "1,64-78")
    shown = run("show", "a").stdout
    assert "retry on      75\n" in shown
    assert "no retry on   1,64-78\n" in shown


def test_a_job_without_rules_has_no_keys_for_them(run: Run) -> None:
    """Its document is that of the first release."""
    assert not {"retry_on", "no_retry_on"} & enqueued(run, "true").keys()


def test_the_config_gives_rules_to_jobs_that_come_later(run: Run) -> None:
    """A job keeps what it was enqueued with; an option or a key overrides the config."""
    before = enqueued(run, "true", "--id", "before")
    assert run("config", "set", "no-retry-on", "1,64-78") == (0, "", "")
    assert enqueued(run, "true")["no_retry_on"] == "1,64-78"
    assert enqueued(run, "true", "--no-retry-on", "2")["no_retry_on"] == "2"
    assert "no_retry_on" not in enqueued(run, "true", "--no-retry-on", "none")
    assert "no_retry_on" not in enqueued(run, '{"command": "true", "no_retry_on": null}')
    assert json.loads(run("show", "before", "--json").stdout) == before


def test_an_option_overrides_the_config_with_no_rule(run: Run) -> None:
    """That of retry-on is any, that of no-retry-on none; a document has either, or null."""
    run("config", "set", "retry-on", "75")
    assert enqueued(run, "true")["retry_on"] == "75"
    assert "retry_on" not in enqueued(run, "true", "--retry-on", "any")
    assert "retry_on" not in enqueued(run, '{"command": "true", "retry_on": "any"}')
    assert run("enqueue", '{"command": "true", "retry_on": "none"}').exit_code == 65


@pytest.mark.parametrize(("option", "word"), [("--retry-on", "any"), ("--no-retry-on", "none")])
def test_a_bad_list_is_a_usage_error(run: Run, option: str, word: str) -> None:
    """Nothing is enqueued, and the message says what a list is."""
    assert run("enqueue", "true", option, "0-3") == (
        2,
        "",
        (
            f"Error: Invalid value for '{option}': '0-3' must be exit codes from 1 to 255 and"
            f" ranges of them, such as 1,64-78, or {word}. Try 'queuectl enqueue --help'.\n"
        ),
    )
    assert not run.store_dir.exists()


def test_an_option_and_a_key_that_disagree_are_a_usage_error(run: Run) -> None:
    """The same rule in both places is none, however it is written."""
    document = '{"id": "a", "command": "true", "retry_on": "1, 2"}'
    assert run("enqueue", document, "--retry-on", "1,3") == (
        2,
        "",
        "Error: --retry-on conflicts with the job document of 'a'; specify it only once\n",
    )
    assert run("enqueue", document, "--retry-on", "1,2") == (0, "a\n", "")


def test_a_bad_key_is_named(run: Run) -> None:
    """As every wrong value of a document."""
    assert run("enqueue", '{"command": "true", "no_retry_on": 2}') == (
        65,
        "",
        (
            "Error: 'no_retry_on' is 2; it must be null or a string of exit codes from 1 to 255,"
            " such as '1,64-78'\n"
        ),
    )
