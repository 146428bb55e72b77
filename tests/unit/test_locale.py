"""The second start of the program where a locale is not UTF-8."""

import builtins
import os
import sys
from typing import Any

import pytest

from queuectl.cli import locale


def test_arguments_without_proc_are_those_that_python_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a BSD there is no better source."""

    def refuse(*_: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(builtins, "open", refuse)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "queuectl", "\udce9"])
    assert locale._arguments() == [b"python", b"-m", b"queuectl", b"\xe9"]


def test_word_that_python_cannot_give_back_is_told_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends in one line, not in a traceback."""
    monkeypatch.setattr(sys, "orig_argv", ["python", "\ud800"] * 100)
    with pytest.raises(SystemExit) as caught:
        locale._arguments()
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("Error: a word cannot be read in this locale")


def test_program_does_not_start_again_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor where nobody knows which Python it is."""
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("it started again"))
    monkeypatch.setattr(sys, "executable", "")
    locale.restart()
