"""Locales whose encoding is not UTF-8: the bytes that were typed are the bytes that run."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.process.support import Queue, until
from tests.program import HAS_LOCALEDEF, LATIN, make_locale

# Not by python -m, which looks for its modules in the current directory, whose name it must know.
_QUEUECTL = Path(sys.executable).with_name("queuectl")
JAPANESE = "ja_JP.EUC-JP"
CHINESE = "zh_CN.GB18030"
UTF8 = "C.UTF-8"

pytestmark = pytest.mark.skipif(
    not HAS_LOCALEDEF,
    reason="localedef, or what it makes locales from, is not here",
)


@pytest.fixture(scope="session")
def locales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with locales that hardly any machine has any more."""
    directory = tmp_path_factory.mktemp("locales")
    for name in (LATIN, JAPANESE, CHINESE):
        make_locale(directory, name)
    return directory


class Done(NamedTuple):
    """Hold what a command has answered, in bytes."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class Abroad:
    """Run commands in a locale, with words of any bytes."""

    def __init__(self, queue: Queue, locales: Path) -> None:
        self.queue = queue
        names = ("LANG", "LC_ALL", "LC_CTYPE", "PYTHONUTF8", "PYTHONIOENCODING")
        self.env = {name: value for name, value in queue.env.items() if name not in names}
        self.env["LOCPATH"] = str(locales)

    def __call__(
        self,
        locale: str,
        *words: str | bytes,
        cwd: bytes | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Done:
        """Run a command, which must not end in a bug."""
        done = subprocess.run(
            [_QUEUECTL, *(each.encode() if isinstance(each, str) else each for each in words)],
            env=self.env | {"LC_ALL": locale} | dict(env or {}),
            cwd=cwd or os.fsencode(self.queue.here),
            capture_output=True,
            timeout=50,
            check=False,
        )
        assert b"Traceback" not in done.stderr, done.stderr.decode(errors="replace")
        return Done(done.returncode, done.stdout, done.stderr)

    def drain(self, locale: str, **options: Mapping[str, str]) -> None:
        """Run everything that is due, by a worker in a locale."""
        done = self(locale, "worker", "start", "--drain", env=options.get("env"))
        assert done.exit_code == 0, done

    def log(self, job_id: str) -> bytes:
        """Return what the first attempt of a job wrote."""
        return (self.queue.store / "logs" / f"{job_id}.1.log").read_bytes()


@pytest.fixture
def abroad(queue: Queue, locales: Path) -> Abroad:
    """Return what runs commands in another locale."""
    return Abroad(queue, locales)


WORDS = {
    LATIN: b"caf\xe9 \x80\x9b\xff\xc3\xa9",
    # No characters of the encoding, one that Python and the C library read differently, and one
    # that happens to be UTF-8, too.
    JAPANESE: b"\xc6\xfc\xcb\xdc \x8f\xa2\xb7 \xff \xc4\xa3",
    CHINESE: b"\xc4\xe3\xba\xc3 \xa6\xd9 \x815\xf47 \xff",
    UTF8: "é日本".encode() + b"\xe9\xff",
    "C": b"caf\xe9 \xc3\xa9",
    "POSIX": b"caf\xe9 \xc3\xa9",
}


@pytest.mark.parametrize(
    ("locale", "workers"),
    [
        (LATIN, LATIN), (LATIN, UTF8), (JAPANESE, "C"), (CHINESE, LATIN), (UTF8, LATIN),
        (UTF8, JAPANESE), ("C", LATIN), ("POSIX", UTF8),
    ],
)  # fmt: skip
def test_a_command_runs_with_the_bytes_that_were_typed(
    abroad: Abroad, locale: str, workers: str
) -> None:
    """In whatever locale it was typed, and in whatever locale the worker runs."""
    word = WORDS[locale]
    here = os.path.join(os.fsencode(abroad.queue.here), word)
    os.mkdir(here)
    given = {"GIVEN": os.fsdecode(word)}
    expected = {"string": word, "words": word, "here": here + b"\n", "there": here + b"\n"}
    expected |= {"env": word, "given": word}
    for job_id, *words in (
        ("string", b"printf %s '" + word + b"'"),
        ("words", "--", "printf", "%s", word),
        ("here", "pwd"),
        ("there", "--cwd", here, "pwd"),
        ("env", "--env", b"WORD=" + word, 'printf %s "$WORD"'),
        ("given", "--env", "GIVEN", 'printf %s "$GIVEN"'),
    ):
        cwd = here if job_id == "here" else None
        added = abroad(locale, "enqueue", "--id", job_id, *words, cwd=cwd, env=given)
        assert added == (0, job_id.encode() + b"\n", b"")
    abroad.drain(workers)
    assert {job_id: abroad.log(job_id) for job_id in expected} == expected


def test_a_batch_is_what_its_bytes_are(abroad: Abroad) -> None:
    """A file has no locale."""
    path = abroad.queue.here / "batch"
    path.write_bytes(b"printf 'caf\xe9 \xc3\xa9'\n")
    [job_id] = abroad(LATIN, "enqueue", "--batch", str(path)).stdout.decode().split()
    abroad.drain(LATIN)
    assert abroad.log(job_id) == b"caf\xe9 \xc3\xa9"


@pytest.mark.parametrize(
    ("locale", "env", "shown"),
    [
        (LATIN, {}, b"echo \xe9\\u20ac\\u65e5 caf\xe9"),
        (JAPANESE, {}, b"echo \x8f\xab\xb1\\u20ac\xc6\xfc caf\\xe9"),
        (CHINESE, {}, b"echo \xa8\xa6\xa2\xe3\xc8\xd5 caf\\xe9"),
        (UTF8, {}, "echo é€日 caf\\xe9".encode()),
        ("C", {}, "echo é€日 caf\\xe9".encode()),
        ("C", {"PYTHONUTF8": "0"}, "echo é€日 caf\\xe9".encode()),
        (LATIN, {"PYTHONUTF8": "0"}, b"echo \xe9\\u20ac\\u65e5 caf\xe9"),
        (LATIN, {"PYTHONUTF8": "1"}, "echo é€日 caf\\xe9".encode()),
        (LATIN, {"PYTHONIOENCODING": "utf-8"}, "echo é€日 caf\\xe9".encode()),
        (UTF8, {"PYTHONIOENCODING": "ascii"}, b"echo \\xe9\\u20ac\\u65e5 caf\\xe9"),
        (UTF8, {"PYTHONIOENCODING": "latin-1:strict"}, b"echo \xe9\\u20ac\\u65e5 caf\xe9"),
    ],
    ids=lambda value: str(value) if not isinstance(value, bytes) else "",
)
def test_what_is_shown_is_in_the_encoding_of_the_locale(
    abroad: Abroad, locale: str, env: dict[str, str], shown: bytes
) -> None:
    """Text is shown in it; what it does not have is escaped, and so are bytes that are no text."""
    text, other = shown[5:].rsplit(b" ", 1)
    abroad(UTF8, "enqueue", "--id", "text", "--max-retries", "1", "echo é€日; false")
    abroad(UTF8, "enqueue", "--id", "bytes", "--max-retries", "1", b"echo caf\xe9; false")
    abroad.drain(locale, env=env)
    for words in (("list",), ("dlq", "list")):
        done = abroad(locale, *words, env=env)
        assert done.exit_code == 0
        assert b"echo " + text + b"; false" in done.stdout
        assert b"echo " + other + b"; false" in done.stdout
    for words in (("show",), ("dlq", "show")):
        assert b"command       echo " + text in abroad(locale, *words, "text", env=env).stdout
        assert b"command       echo " + other in abroad(locale, *words, "bytes", env=env).stdout
    assert abroad(locale, "dlq", "show", "text", env=env).stdout.endswith(text + b"\n")
    assert abroad(locale, "dlq", "show", "bytes", env=env).stdout.endswith(other + b"\n")
    # Documents and logs are what they are.
    document = json.loads(abroad(locale, "show", "text", "--json", env=env).stdout)
    assert document["command"] == "echo é€日; false"
    document = json.loads(abroad(locale, "show", "bytes", "--json", env=env).stdout)
    assert document["command"] == "echo caf\udce9; false"
    assert abroad(locale, "logs", "bytes", env=env).stdout == b"caf\xe9\n"


def test_an_error_names_what_is_wrong_in_the_encoding_of_the_locale(abroad: Abroad) -> None:
    """A message reaches its reader, and a pattern finds what was typed like it."""
    path = os.path.join(os.fsencode(abroad.queue.here), b"caf\xe9")
    Path(os.fsdecode(path)).touch()
    for locale, name in ((LATIN, b"/caf\xe9 "), (UTF8, b"/caf\\xe9 ")):
        done = abroad(locale, "--store", path, "list")
        assert done.exit_code == 69
        assert name in done.stderr
    abroad(LATIN, "enqueue", "--id", "a", b"echo \xe9")
    abroad(LATIN, "enqueue", "--id", "b", b"echo \xe8")
    found = abroad(LATIN, "list", "--json", "--command-matches", b"\xe9").stdout
    assert [job["id"] for job in json.loads(found)] == ["a"]


@pytest.mark.parametrize("locale", [LATIN, UTF8, "C", JAPANESE])
def test_a_store_may_have_any_name(abroad: Abroad, locale: str) -> None:
    """Its workers run in the background, which is told in one line, and its jobs end."""
    store = os.path.join(os.fsencode(abroad.queue.here), b"caf\xe9\xff")
    words = ("--store", store)
    done = abroad(locale, *words, "worker", "start", "--detach")
    try:
        assert done.exit_code == 0
        [line] = done.stderr.splitlines()
        assert line.startswith(b"started 1 worker in the background")
        assert (b"caf\xe9\xff/" if locale == LATIN else b"caf\\xe9\\xff/") in line
        added = abroad(locale, *words, "enqueue", "--id", "a", 'printf %s "$QUEUECTL_STORE"')
        assert added.stdout == b"a\n"
        until(lambda: os.path.exists(os.path.join(store, b"completed/a.json")), "the job has ended")
        with open(os.path.join(store, b"logs/a.1.log"), "rb") as log:
            assert log.read() == store
        status = json.loads(abroad(locale, *words, "status", "--json").stdout)
        assert os.fsencode(status["store"]) == store
        assert abroad(locale, *words, "doctor").exit_code == 0
    finally:
        assert abroad(locale, *words, "worker", "stop").exit_code == 0


def test_a_command_finds_the_environment_as_it_was(abroad: Abroad) -> None:
    """That the program starts again in another mode of Python is not passed on."""
    abroad(LATIN, "enqueue", "--id", "a", "env")
    abroad.drain(LATIN, env={"PYTHONUTF8": "0"})
    lines = abroad.log("a").splitlines()
    assert {b"PYTHONUTF8=0", b"LC_ALL=de_DE.ISO-8859-1"} <= set(lines)
    assert not [line for line in lines if line.startswith((b"PYTHONIOENCODING=", b"LC_CTYPE="))]
