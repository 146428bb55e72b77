"""What a user wrote, as jobs."""

import shlex
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from queuectl.clock import later
from queuectl.config import Settings
from queuectl.errors import BadDocument, BadId, QueuectlError, UsageError
from queuectl.job import Job
from queuectl.submit import Options, Submitter

NOW = datetime(2026, 11, 24, 21, 29, 59, 1002, UTC)
NOON = datetime(2026, 11, 25, 12, 0, 0, 0, UTC)


def submitter(settings: Settings | None = None, **options: Any) -> Submitter:
    """Return what makes jobs, under these options, in /here."""
    return Submitter(Options(here="/here", **options), settings or Settings(), NOW)


def one(*words: str, settings: Settings | None = None, **options: Any) -> Job:
    """Return the job that words make."""
    made = submitter(settings, **options)
    made.one(words)
    (job,) = made.jobs
    return job


def batch(data: bytes, **options: Any) -> list[Job]:
    """Return the jobs that the lines of a batch make."""
    made = submitter(**options)
    made.batch(data.splitlines(keepends=True))
    return [*made.jobs]


def commands(data: bytes) -> list[str]:
    """Return the commands that a batch holds."""
    return [job.command for job in batch(data)]


def test_a_bare_command_gets_everything_by_default() -> None:
    """The limits are the config's, the directory is here, and it is due now."""
    settings = Settings(max_retries=7, timeout=90.0, priority=2)
    job = one("true", settings=settings)
    assert job == Job(
        id=job.id,
        command="true",
        priority=2,
        max_retries=7,
        timeout_seconds=90.0,
        cwd="/here",
        created_at=NOW,
        updated_at=NOW,
        run_at=NOW,
    )


@pytest.mark.parametrize(
    "text",
    ["sleep 3; echo 'a b'", "a  b ", "{ echo; }", "{x", "[ -f x ] && y", "[x]", "-x"],
)
def test_a_single_word_is_left_to_the_shell(text: str) -> None:
    """What is one word is the shell's to read, to the letter."""
    assert one(text).command == text


@pytest.mark.parametrize(
    "words", [("echo", "hi"), ("rsync", "my files/", "*", ""), ("a", "b;c", "'")]
)
def test_several_words_stay_words(words: tuple[str, ...]) -> None:
    """Quoted for the shell, each word arrives as it was given."""
    assert tuple(shlex.split(one(*words).command)) == words


@pytest.mark.parametrize("words", [(), ("",), (" \t\n",)])
def test_an_empty_command_is_refused(words: tuple[str, ...]) -> None:
    """A job that runs nothing is a mistake."""
    with pytest.raises(UsageError, match=r"^the command is empty$"):
        one(*words)


@pytest.mark.parametrize(
    "text",
    ['{"command": "x"}', '{ "command" : "x" }', ' \n{\n  "command": "x"\n}\n'],
)
def test_an_object_is_a_document(text: str) -> None:
    """However it is laid out, an object is a job document."""
    assert one(text).command == "x"


def test_a_document_says_everything_that_a_user_may() -> None:
    """Each key that can be chosen goes into the job."""
    job = one(
        '{"id": "j", "command": "x", "priority": 0, "max_retries": 1, "timeout": 1.5, "cwd": "/w",'
        ' "env": {"A": "1"}, "run_at": "2026-11-25T12:00:00Z"}'
    )
    assert job == Job(
        id="j",
        command="x",
        priority=0,
        max_retries=1,
        timeout_seconds=1.5,
        cwd="/w",
        env={"A": "1"},
        created_at=NOW,
        updated_at=NOW,
        run_at=NOON,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "'command' is missing"),
        ('{"command": "x"', "not a job document: bad JSON"),
        ('{"command": "x"} {', "not a job document: bad JSON"),
        ('{"command": "x", "cwd": "w"}', "'cwd' is 'w'; it must be an absolute path"),
        ('{"command": "x", "cwd": ""}', "'cwd' is ''; it must be an absolute path"),
        ('{"command": "\udcff"}', "not a job document: not UTF-8 at byte 13"),
        ("[]", "a JSON array is no job"),
        ('[ "a" ]', "a JSON array is no job"),
        ('[{"command": "x"}]', "a JSON array is no job"),
        ('[{"command": "x"},]', "a JSON array is no job"),
        ("[1, 2]", "a JSON array is no job"),
        ("[" * 100_000, "a JSON array is no job"),
    ],
    ids=lambda value: value[:20],
)
def test_a_bad_document_is_refused(text: str, message: str) -> None:
    """What is meant as a document, and is none, never becomes a command."""
    with pytest.raises(BadDocument) as caught:
        one(text)
    assert str(caught.value).startswith(message)


def test_two_documents_are_not_one_command() -> None:
    """Documents side by side are refused, and the way for several is named."""
    with pytest.raises(UsageError, match="must be the only argument; use --batch for several"):
        one('{"command": "x"}', '{"command": "y"}')


OPTIONS: dict[str, Any] = {
    "id": "j",
    "priority": 1,
    "max_retries": 9,
    "timeout_seconds": 60.0,
    "cwd": "/w",
}


def test_options_apply_to_a_document_that_is_silent() -> None:
    """A document takes from the options what it does not say."""
    job = one('{"command": "x", "env": {"B": "2"}}', env={"A": "1"}, run_at=NOON, **OPTIONS)
    assert {name: getattr(job, name) for name in OPTIONS} == OPTIONS
    assert job.env == {"A": "1", "B": "2"}
    assert job.run_at == NOON


def test_an_option_and_a_key_may_say_the_same() -> None:
    """Saying a thing twice is no mistake."""
    job = one(
        '{"command": "x", "id": "j", "priority": 1, "max_retries": 9, "timeout": 60, "cwd": "/w",'
        ' "env": {"A": "1"}, "run_at": "2026-11-25T13:00:00+01:00"}',
        env={"A": "1"},
        run_at=NOON,
        **OPTIONS,
    )
    assert {name: getattr(job, name) for name in OPTIONS} == OPTIONS
    assert (job.env, job.run_at) == ({"A": "1"}, NOON)


@pytest.mark.parametrize(
    ("key", "options", "named"),
    [
        ('"id": "a"', {"id": "b"}, "--id"),
        ('"priority": 1', {"priority": 2}, "--priority"),
        ('"max_retries": 1', {"max_retries": 2}, "--max-retries"),
        ('"timeout": null', {"timeout_seconds": 2.0}, "--timeout"),
        ('"cwd": "/a"', {"cwd": "/b"}, "--cwd"),
        ('"env": {"A": "1"}', {"env": {"A": "2"}}, "--env A"),
        ('"run_at": "2026-11-25T12:00:00Z"', {"run_at": NOW}, "--run-at"),
        ('"run_at": "2026-11-25T12:00:00Z"', {"delay_seconds": 0.0}, "--delay"),
    ],
)
def test_an_option_and_a_key_that_disagree_are_refused(
    key: str, options: dict[str, Any], named: str
) -> None:
    """Nobody can know which of two was meant."""
    with pytest.raises(UsageError) as caught:
        one('{"command": "x", ' + key + "}", **options)
    of = " of 'a'" if "id" in key else ""  # one that is made says nothing
    assert str(caught.value) == f"{named} conflicts with the job document{of}; specify it only once"


def test_a_delay_counts_from_now() -> None:
    """The job was made now, and is due later."""
    job = one("true", delay_seconds=90.5)
    assert (job.created_at, job.run_at) == (NOW, NOW + timedelta(seconds=90.5))


@pytest.mark.parametrize("job_id", ["../x", "a/b", "", ".x", "x" * 101, "a\n"])
def test_a_bad_id_is_refused(job_id: str) -> None:
    """An id is checked, whether an option or a document gives it."""
    with pytest.raises(BadId):
        one("true", id=job_id)


def test_a_chosen_id_is_told_from_one_that_is_made() -> None:
    """The store is asked only about ids that somebody chose."""
    made = submitter()
    made.batch([b"true\n", b"\n", b'{"command": "x", "id": "j"}\n'])
    assert made.chosen == {"j": 3}
    made = submitter(id="k")
    made.one(["true"])
    assert made.chosen == {"k": 1}


def test_a_batch_is_one_job_a_line() -> None:
    """Blank lines are skipped; either end of a line, or none at the end of the file, will do."""
    assert commands(b'a\n\n \t\nb c\r\n{"command": "d"}\r\n  e  \nf') == ["a", "b c", "d", "e", "f"]
    assert commands(b"") == commands(b"\n\r\n") == []
    assert commands(b'\xef\xbb\xbf{"command": "a"}\n') == ["a"]


def test_a_line_may_hold_any_byte_but_nul() -> None:
    """A file name in a command is bytes, and reaches the shell as it is."""
    (command,) = commands(b"cat \xff\n")
    assert command.encode("utf-8", "surrogateescape") == b"cat \xff"


def test_a_batch_keeps_its_order() -> None:
    """Each job is due a microsecond after the one before it, except where its line says when."""
    jobs = batch(b'a\n{"command": "b", "run_at": "2026-11-25T12:00:00Z"}\nc\n')
    microsecond = timedelta(microseconds=1)
    assert [job.run_at for job in jobs] == [NOW, NOON, NOW + 2 * microsecond]
    assert {job.created_at for job in jobs} == {NOW}
    jobs = batch(b"a\nb\n", run_at=NOON)
    assert [job.run_at for job in jobs] == [NOON, NOON + microsecond]
    jobs = batch(b"a\nb\n", delay_seconds=60.0)
    due_at = NOW + timedelta(seconds=60)
    assert [job.run_at for job in jobs] == [due_at, due_at + microsecond]


def test_options_apply_to_every_line() -> None:
    """What is said once holds for the whole batch."""
    jobs = batch(b'a\n{"command": "b", "env": {"B": "2"}}\n', priority=1, env={"A": "1"})
    assert [job.priority for job in jobs] == [1, 1]
    assert [job.env for job in jobs] == [{"A": "1"}, {"A": "1", "B": "2"}]


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        (b'{"command": 7}', BadDocument, "line 3: 'command' is 7; it must be a string"),
        (b'{"id": "../x", "command": "a"}', BadId, "line 3: '../x' is not an id;"),
        (
            b'{"command": "x", "priority": 2}',
            UsageError,
            "line 3: --priority conflicts with the job document",
        ),
        (b"a\0b", BadDocument, "line 3: 'command' holds a NUL character"),
        (b'["a"]', BadDocument, "line 3: an array of jobs holds objects"),
        (b'{"command": "\xff"}', BadDocument, "line 3: not a job document: not UTF-8 at byte 13"),
        (b'{"command": "b", "id": "j"}', BadDocument, "line 3: duplicate id 'j' (first on line 1)"),
    ],
)
def test_a_bad_line_is_named(line: bytes, kind: type[QueuectlError], message: str) -> None:
    """The error keeps its kind, and says on which line of the file it is, blank ones counted."""
    with pytest.raises(kind) as caught:
        batch(b'{"command": "a", "id": "j"}\n\n' + line + b"\nfine\n", priority=1)
    assert str(caught.value).startswith(message)


def test_each_bare_command_of_a_batch_is_checked_as_the_first() -> None:
    """What one line brings along does not reach the next, and a bad one is refused as ever."""
    lines = b'a\n{"command": "b", "priority": 1, "env": {"K": "v"}}\nc\n{"command": "d"}\n'
    jobs = batch(lines, max_retries=2, env={"X": "y"})
    plain = one("a", max_retries=2, env={"X": "y"})
    assert [job.command for job in jobs] == ["a", "b", "c", "d"]
    for job in (jobs[0], jobs[2], jobs[3]):
        assert job == plain._replace(id=job.id, command=job.command, run_at=job.run_at)
    assert len({job.id for job in jobs}) == 4
    assert [job.run_at for job in jobs] == [later(NOW, index / 1_000_000) for index in range(4)]
    for bad in (b"a\nb\0\n", b'a\n{"command": " "}\n', b'a\n{"command": 7}\n'):
        with pytest.raises(BadDocument, match=r"line 2: .*command"):
            batch(bad)
