"""What ``queuectl enqueue`` takes from variables of the environment."""

import json

import pytest
from tests.cli.conftest import Run


def only_env(run: Run) -> dict[str, str]:
    """Return the variables of the only job."""
    (document,) = json.loads(run("list", "--json").stdout)
    env: dict[str, str] = document["env"]
    return env


@pytest.mark.parametrize(
    ("given", "env"),
    [
        ("MSG=hello world", {"MSG": "hello world"}),
        ("A=1\nB=two words\n", {"A": "1", "B": "two words"}),
        ("\nA= b \n\n", {"A": " b "}),
        ("WORD\nB=", {"WORD": "from here", "B": ""}),
    ],
)
def test_a_variable_of_the_job_may_hold_spaces(
    run: Run, monkeypatch: pytest.MonkeyPatch, given: str, env: dict[str, str]
) -> None:
    """Several stand on a line each, as ids, which hold no spaces, stand on one."""
    monkeypatch.setenv("WORD", "from here")
    monkeypatch.setenv("QUEUECTL_ENQUEUE_ENV", given)
    assert run("enqueue", "--id", "a", "true") == (0, "a\n", "")
    assert only_env(run) == env


def test_several_ids_stand_on_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An id holds no space, so that spaces part them."""
    run("enqueue", "--id", "a", "true")
    run("enqueue", "--id", "b", "true")
    monkeypatch.setenv("QUEUECTL_ENQUEUE_AFTER", "a b")
    assert run("enqueue", "--id", "c", "true") == (0, "c\n", "")
    assert json.loads(run("show", "c", "--json").stdout)["after"] == ["a", "b"]
