"""Where the store is: what ~, URLs and fresh file systems stand for."""

import json
import os
import pwd
from pathlib import Path

import pytest
from tests.cli.conftest import Run

from queuectl.store import private


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the user's entry out of the password file, as in a container with a random user."""

    def unknown(_uid: int) -> None:
        raise KeyError("uid not found")

    monkeypatch.setattr(pwd, "getpwuid", unknown)


NO_HOME = (
    "Error: the store ~/.queuectl cannot be found, since HOME is no absolute path and this user has"
    " no other home directory: set HOME, or give --store a directory\n"
)


@pytest.mark.parametrize("home", [None, "", "relative"])
def test_a_store_at_home_needs_a_home(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nobody: None, home: str | None
) -> None:
    """Else there would be a queue in each directory from which somebody enqueues."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QUEUECTL_STORE")
    if home is None:
        monkeypatch.delenv("HOME", raising=False)
    else:
        monkeypatch.setenv("HOME", home)
    assert run("enqueue", "true") == (78, "", NO_HOME)
    assert run("list") == (78, "", NO_HOME)
    assert list(tmp_path.iterdir()) == []


def test_a_home_may_come_from_the_password_file(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs that start with an empty environment know where the user is at home."""
    monkeypatch.delenv("HOME", raising=False)
    entry = pwd.struct_passwd(("ada", "x", os.getuid(), os.getgid(), "", str(tmp_path), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: entry)
    assert run("--store", "~/q", "enqueue", "--id", "a", "true") == (0, "a\n", "")
    assert (tmp_path / "q" / "format").exists()


@pytest.mark.parametrize("home", ["/", "//"])
def test_a_home_may_be_the_root(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    """As that of a system user is."""
    monkeypatch.setenv("HOME", home)
    assert run("--store", f"~{tmp_path}/q", "enqueue", "--id", "a", "true") == (0, "a\n", "")
    assert (tmp_path / "q" / "format").exists()


def test_a_user_who_does_not_exist_has_no_store(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistyped name makes no directory that is called so."""
    monkeypatch.chdir(tmp_path)
    message = (
        "Error: the store ~nosuchuser/q cannot be found: there is no user 'nosuchuser'; a directory"
        " that is called so is ./~nosuchuser/q\n"
    )
    assert run("--store", "~nosuchuser/q", "enqueue", "true") == (2, "", message)
    assert list(tmp_path.iterdir()) == []
    assert run("--store", "./~nosuchuser/q", "enqueue", "--id", "a", "true") == (0, "a\n", "")


@pytest.mark.parametrize("url", ["ssh+x://h/y", "s3.a-b://h", "redis://localhost/0"])
def test_a_url_is_no_directory(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """Whatever its scheme is made of, it is refused and makes nothing."""
    monkeypatch.chdir(tmp_path)
    scheme = url.partition("://")[0]
    message = f"Error: a store at a {scheme}:// URL is not supported; give a directory\n"
    assert run("--store", url, "enqueue", "true") == (78, "", message)
    assert list(tmp_path.iterdir()) == []


def test_a_fresh_file_system_can_be_a_store(run: Run) -> None:
    """The lost+found that mkfs has left in it is nobody's job, and no damage."""
    lost = run.store_dir / "lost+found"
    lost.mkdir(parents=True, mode=0o700)
    run.store_dir.chmod(0o700)
    assert run("doctor")[::2] == (0, "")
    assert run("list", "--json") == (0, "[]\n", "")
    assert run("enqueue", "--id", "a", "true") == (0, "a\n", "")
    code, stdout, _ = run("doctor", "--json")
    assert (code, json.loads(stdout)) == (0, [])
    assert lost.is_dir()
    (run.store_dir / "format").unlink()
    assert run("enqueue", "--id", "b", "true") == (0, "b\n", "")


@pytest.mark.parametrize("words", [[], ["--id", "b"], ["--after", "a"]])
def test_an_enqueue_opens_the_store_once(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """The settings are read from the store that the job is added to."""
    run("enqueue", "--id", "a", "true")
    opened = []
    open_directory = private.open_directory

    def counted(path: str, *, inside_fd: int | None = None) -> int:
        opened.append(path)
        return open_directory(path, inside_fd=inside_fd)

    monkeypatch.setattr(private, "open_directory", counted)
    assert run("enqueue", "true", *words).exit_code == 0
    assert opened.count(str(run.store_dir)) == 1


def test_a_store_that_goes_while_jobs_are_read_is_made_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who pipes jobs in may take long, and they are not put where nobody finds them."""
    run("enqueue", "--id", "a", "true")

    def read_command() -> str:
        run.store_dir.rename(run.store_dir.with_name("moved"))
        return "late"

    monkeypatch.setattr("queuectl.cli.streams.read_command", read_command)
    assert run("enqueue", "-").exit_code == 0
    (job,) = json.loads(run("list", "--json").stdout)
    assert job["command"] == "late"
