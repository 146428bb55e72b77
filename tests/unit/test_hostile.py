"""Documents, settings and records that were made to do harm: each an error that is told at once."""

import json
import os
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.jobs import DEFAULTS, NOON, decode_job, make_job

from queuectl.clock import from_timestamp, parse_duration, parse_instant
from queuectl.codes import check_codes
from queuectl.document import encode_job
from queuectl.errors import BadDocument, ConfigError, QueuectlError, UsageError
from queuectl.job import MAX_ATTEMPT, MAX_COMMAND_BYTES
from queuectl.store import open_store
from queuectl.store.directory import DirectoryStore
from queuectl.store.tally import tally_from
from queuectl.strict_json import MAX_NESTING, parse_object
from queuectl.submit import job_from_user

LONG = "x" * 1_000_000


def nested(depth: int) -> bytes:
    """Return a document whose deepest value lies in so many arrays and objects."""
    return b'{"command": "x", "deep": %b%b}' % (b"[" * (depth - 1), b"]" * (depth - 1))


def test_nesting_is_bounded_for_all_alike() -> None:
    """What is read can be written, shown and told of, however deep the stack is already."""
    job = decode_job(nested(MAX_NESTING), "j", DEFAULTS)
    assert decode_job(encode_job(job), "j", DEFAULTS) == job
    json.dumps(job.extra, indent=2)
    for depth in (MAX_NESTING + 1, 500, 5000, 100_000):
        with pytest.raises(BadDocument, match="nested more than 100 deep"):
            parse_object(nested(depth))
    # Brackets in texts, and many that are not deep, do not count.
    assert parse_object(b'{"a": "%b"}' % (b"[" * 500)) == {"a": "[" * 500}
    assert parse_object(b'{"a": [%b[]]}' % (b"[]," * 500)) == {"a": [[]] * 501}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": ' + "9" * 5000 + "}", "bad JSON: a number has more than 4300 digits"),
        ('{"a": 1e400}', "bad JSON: 1e400 is out of range"),
        ('{"a": 1.' + "0" * 10_000 + "e999}", "is out of range"),
        ('{"a": 1, "' + LONG + '": 1, "' + LONG + '": 1}', "duplicate key "),
        ("\ufeff{}", "bad JSON: "),
        ("{} {}", "bad JSON: Extra data"),
    ],
    ids=["digits", "1e400", "long number", "long key", "BOM", "two"],
)
def test_text_that_is_no_document_is_told_of_shortly(text: str, message: str) -> None:
    """An error is one short line, however long what it is about, and speaks of no Python."""
    with pytest.raises(BadDocument) as caught:
        parse_object(text.encode())
    assert message in str(caught.value)
    assert len(str(caught.value)) < 200
    assert "sys." not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-le"])
def test_other_encodings_are_no_documents(encoding: str) -> None:
    """Only UTF-8 is read, and nothing is guessed at."""
    with pytest.raises(BadDocument):
        parse_object('{"command": "x"}'.encode(encoding))


@pytest.mark.timeout(20)
def test_key_that_stands_twice_is_found_at_once_among_many() -> None:
    """To tell which of 200,000 keys stands twice takes no more than to read them."""
    pairs = ", ".join(f'"key {index}": 0' for index in range(200_000))
    with pytest.raises(BadDocument, match="duplicate key 'key 199999'"):
        parse_object("{" + pairs + ', "key 199999": 1}')


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("number", 0), ("number", MAX_ATTEMPT + 1), ("number", 2**53), ("number", True),
        ("duration", -1), ("duration", 10**400), ("duration", 1e300), ("duration", "1"),
        ("exit_code", 256), ("exit_code", -1), ("exit_code", 10**400), ("exit_code", False),
        ("signal", 0), ("signal", 128), ("signal", 9.0),
        ("outcome", "Won!"), ("outcome", []), ("started_at", None), ("log", 1), ("worker", "\0"),
    ],
)  # fmt: skip
def test_attempt_that_cannot_have_been_is_refused(key: str, value: object) -> None:
    """What would break a sum, an exit code or the name of the next attempt is not read."""
    attempt = {"outcome": "failed", "started_at": "2026-01-01T00:00:00Z", key: value}
    with pytest.raises(BadDocument, match="'history', attempt 1: "):
        decode_job(json.dumps({"command": "x", "history": [attempt]}).encode(), "j", DEFAULTS)


def test_last_attempt_that_can_be_named() -> None:
    """The attempt after the largest number still has a name of nine digits."""
    attempt = {"outcome": "failed", "started_at": "2026-01-01", "number": MAX_ATTEMPT}
    job = decode_job(json.dumps({"command": "x", "history": [attempt]}).encode(), "j", DEFAULTS)
    assert job.next_attempt == 999_999_999


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("run_at", LONG), ("created_at", LONG), ("cwd", LONG), ("state", LONG), ("retry_on", LONG),
        ("after", [LONG]), ("env", {LONG: ""}), ("env", {"A" * 1_000_000: 1}), ("id", LONG),
        ("env", {"A": [[LONG]]}), (LONG, 1), ("command", LONG), ("timeout", LONG),
    ],
    ids=lambda value: repr(value)[:12],
)  # fmt: skip
def test_message_about_a_long_value_is_short(key: str, value: object) -> None:
    """A megabyte in the wrong place makes no megabyte of an error."""
    with pytest.raises(QueuectlError) as caught:
        job_from_user({"command": "x", key: value}, "j", DEFAULTS)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("cwd", ["", "here", "./here", "~", "../etc"])
def test_directory_that_depends_on_the_worker_is_refused(cwd: str) -> None:
    """A relative cwd would be another one in each worker."""
    with pytest.raises(BadDocument, match="it must be an absolute path"):
        decode_job(json.dumps({"command": "x", "cwd": cwd}).encode(), "j", DEFAULTS)


def test_environment_that_the_kernel_does_not_take_is_refused() -> None:
    """A job that can never be started is not added."""
    most = "x" * (MAX_COMMAND_BYTES - len("A="))
    assert job_from_user({"command": "x", "env": {"A": most}}, "j", DEFAULTS).env["A"] == most
    with pytest.raises(BadDocument, match="'env': A has 131070 bytes; 131069 is"):
        job_from_user({"command": "x", "env": {"A": most + "x"}}, "j", DEFAULTS)
    many = {f"A{index}": "x" * 100_000 for index in range(70)}
    with pytest.raises(BadDocument, match="'env' has 7000340 bytes; 6291456 is the most"):
        job_from_user({"command": "x", "env": many}, "j", DEFAULTS)
    with pytest.raises(BadDocument, match="'cwd' has 5001 bytes; 4096 is the most"):
        job_from_user({"command": "x", "cwd": "/" + "x" * 4999}, "j", DEFAULTS)


@pytest.mark.timeout(20)
def test_spaces_in_a_list_of_codes_cost_no_more_than_other_characters() -> None:
    """A list that is all spaces is read in one go."""
    spaces = " " * 200_000
    assert check_codes(f"1{spaces},{spaces}2{spaces}-{spaces}3", "retry_on") == "1,2-3"
    with pytest.raises(UsageError):
        check_codes(f"1{spaces}1", "retry_on")


@pytest.mark.parametrize("text", [LONG, "9" * 5000, "1h" * 100_000, "2026" * 100_000])
@pytest.mark.parametrize("parse", [parse_duration, parse_instant])
def test_time_of_any_length_is_refused_shortly(parse: Any, text: str) -> None:
    """Durations and instants are told of in one short line."""
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("seconds", [-(2.0**62), -1e12, 2.0**40, 2.0**62])
def test_time_of_a_file_is_an_instant_whatever_it_is(seconds: float) -> None:
    """A file system may hold a time that no datetime does."""
    assert from_timestamp(seconds).year in (1, 9999)


@pytest.mark.parametrize(
    "document",
    [
        {"seconds": "nan"}, {"seconds": float("nan")}, {"seconds": 10**400}, {"seconds": -1},
        {"seconds": True}, {"outcomes": []}, {"outcomes": {"Won!": 1}}, {"outcomes": {"lost": -1}},
        {"outcomes": {"lost": True}}, {"outcomes": {"lost": "1"}}, {"outcomes": {"lost": 2**60}},
        {"lengths": []}, {"lengths": "00000000000"}, {"lengths": {}}, {"lengths": [1.5] * 11},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_tally_is_refused(document: dict[str, Any]) -> None:
    """Only counts are counted on."""
    with pytest.raises(ValueError, match=r"count|outcome"):
        tally_from(document)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    [
        '{"seconds": "nan"}', '{"workers": ["\\u0000"]}', '{"workers": ["\\ud800", "../../x"]}',
        '{"workers": [1]}', '{"seconds": 1%s}' % ("0" * 400), "[" * 5000,
    ],
    ids=lambda text: text[:30],
)  # fmt: skip
def test_tally_that_is_broken_counts_anew(tmp_path: Path, text: str) -> None:
    """A tally that is not even equal to itself holds up nobody, and names lead nowhere."""
    (tmp_path / "store").mkdir(mode=0o700)
    store = DirectoryStore(str(tmp_path / "store"), create=True)
    (tmp_path / "store" / "tally.json").write_text(text)
    assert store.workers.tally() == tally_from({})
    store.queue.register("w-1", NOON)
    store.queue.unregister()
    store.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"name": 1}, {"name": "../x"}, {"name": "\0"}, {"name": None}, {"pid": "1"}, {"pid": -1},
        {"host": []}, {"since": 1}, {"since": "x"}, {"job": []}, {"job": {}}, {"job": "\x1b"},
        {"attempt": []}, {"attempt": 1.5}, {"slot": "1"}, {"recent": "xxxxxx"}, {"recent": [[]]},
        {"slot": -1}, {"recent": 10**300}, {"seconds": 10**300}, {"lengths": 1},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_record_is_no_worker(tmp_path: Path, changes: dict[str, Any]) -> None:
    """A record that a hand has made neither counts nor harms, and is tidied away."""
    store = DirectoryStore(str(tmp_path / "store"), create=True)
    path = tmp_path / "store" / "workers" / "w-1.json"
    record = {"name": "w-1", "pid": 1, "host": "h", "since": "2026-01-01T00:00:00Z"}
    path.write_text(json.dumps(record | changes))
    assert list(store.core.records.all()) == []
    store.pool.tidy()
    assert not path.exists()
    store.close()


@pytest.mark.parametrize("text", ["[" * 1024, '{"since": Infinity}', "\udcff", '{"a": 1, "a": 1}'])
def test_record_that_is_no_json_is_no_worker(tmp_path: Path, text: str) -> None:
    """Nor is one that is deeper than the stack."""
    store = DirectoryStore(str(tmp_path / "store"), create=True)
    path = tmp_path / "store" / "workers" / "w-1.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert store.workers.live() == []
    store.pool.tidy()
    assert not path.exists()
    store.close()


def test_record_that_is_read_while_it_is_written_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACE: a worker writes over its record for each job; it is live all the while."""
    worker = DirectoryStore(str(tmp_path / "store"), create=True)
    worker.queue.register("w-1", NOON)
    store, real, torn = DirectoryStore(str(tmp_path / "store")), os.pread, [b'{"name": "w-', b""]
    monkeypatch.setattr(os, "pread", lambda *args: torn.pop() if torn else real(*args))
    assert [record.name for record in store.workers.live()] == ["w-1"]
    assert torn == []
    worker.close()
    store.close()


def test_record_without_an_offset_is_of_local_time(tmp_path: Path) -> None:
    """Instants are compared with others, which those without an offset cannot be."""
    store = DirectoryStore(str(tmp_path / "store"), create=True)
    record = {"name": "w-1", "pid": 1, "host": "h", "since": "2026-01-01"}
    (tmp_path / "store" / "workers" / "w-1.json").write_text(json.dumps(record))
    [(found, _, _)] = store.core.records.all()
    assert found.since == parse_instant("2026-01-01")
    store.close()


@pytest.mark.parametrize("name", ["x.control", ".control"])
def test_directory_in_the_place_of_a_fifo_is_left(tmp_path: Path, name: str) -> None:
    """What is to be tidied away and is not what it is called stays there."""
    store = DirectoryStore(str(tmp_path / "store"), create=True)
    (tmp_path / "store" / "workers" / name).mkdir()
    store.pool.tidy()
    assert os.listdir(tmp_path / "store" / "workers") == [name]
    store.close()


@pytest.mark.parametrize("text", ["9" * 5000, "0" * 5000 + "2", "2"])
def test_format_of_any_length_is_that_of_a_newer_version(tmp_path: Path, text: str) -> None:
    """A number that Python does not take is a number."""
    open_store(str(tmp_path / "store"), create=True).close()
    (tmp_path / "store" / "format").write_text(text)
    with pytest.raises(ConfigError, match="upgrade queuectl"):
        open_store(str(tmp_path / "store"))


@pytest.mark.parametrize("text", ["0", "00", "", "-1", "1.0", "\u0663"])
def test_format_that_is_no_number_is_broken(tmp_path: Path, text: str) -> None:
    """There is no format 0."""
    open_store(str(tmp_path / "store"), create=True).close()
    (tmp_path / "store" / "format").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="format is broken: it must hold the number 1"):
        open_store(str(tmp_path / "store"))


@pytest.mark.parametrize("name", ["format", "config.json"])
def test_file_of_the_root_that_is_too_long_is_told_of(tmp_path: Path, name: str) -> None:
    """A hundred megabytes of settings are refused unread."""
    open_store(str(tmp_path / "store"), create=True).close()
    with open(tmp_path / "store" / name, "wb") as file:
        file.truncate(100_000_000)
    with (
        pytest.raises(ConfigError, match=f"{name} is broken: it is too long"),
        closing(open_store(str(tmp_path / "store"))) as store,
    ):
        store.settings()


def test_setting_a_key_keeps_what_cannot_be_written_as_it_is(tmp_path: Path) -> None:
    """A lone surrogate in config.json is no reason to fail where another key is set."""
    store = open_store(str(tmp_path / "store"), create=True)
    (tmp_path / "store" / "config.json").write_text('{"x": "\\ud800"}')
    store.config.change(lambda found: found | {"priority": "1"})
    assert store.config.read() == {"x": "\ud800", "priority": "1"}
    store.close()


def test_recovery_of_a_document_with_no_length_in_it(tmp_path: Path) -> None:
    """An attempt whose length no sum takes goes to corrupt/, and does not end its worker."""
    store = open_store(str(tmp_path / "store"), create=True)
    document = json.loads(encode_job(make_job("a", cwd="/")))
    attempt = {"number": 1, "outcome": "succeeded", "started_at": "2026-01-01"}
    document |= {"state": "completed", "history": [attempt | {"duration": 10**400}]}
    (tmp_path / "store" / "processing" / "a.1.json").write_text(json.dumps(document))
    assert store.pool.recover(lambda job, attempt: job).recovered == []
    assert sorted(os.listdir(tmp_path / "store" / "corrupt")) == ["a.1.json", "a.1.json.reason"]
    store.close()
