"""Whatever is typed, or lies in a file, is a value within its bounds or a short error."""

import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.cli.conftest import Result
from tests.jobs import DEFAULTS, NOON, decode_job
from tests.property.hostile import TEXTS

from queuectl.clock import parse_instant
from queuectl.codes import NO_RULE, check_codes, includes
from queuectl.config import Settings, read_settings, settings_document
from queuectl.document import encode_job
from queuectl.errors import BadDataError, ConfigError, QueuectlError, UsageError
from queuectl.job import MAX_MAX_RETRIES, MAX_PRIORITY, check_id, log_name
from queuectl.store.logs import parse_log_name
from queuectl.store.records import _read_record
from queuectl.store.tally import joined, tally_document, tally_from
from queuectl.store.values import Tally
from queuectl.strict_json import parse_object
from queuectl.submit import Options, Submitter

_LONGEST_MESSAGE = 1000

texts = st.text() | st.binary().map(os.fsdecode)
numbers = st.integers() | st.floats() | st.sampled_from([10**400, 2**63, 1e308, True, False])
values = st.recursive(
    st.none() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
_SETTINGS = tuple(settings_document(Settings()))
hostile_texts = st.sampled_from(TEXTS) | st.binary()


def told(error: BaseException, begin: str = "") -> None:
    """Check that an error says something, and not too much of it."""
    assert len(begin) < len(str(error)) < _LONGEST_MESSAGE
    assert str(error).startswith(begin)


@given(hostile_texts)
def test_any_bytes_are_settings_or_a_config_error(data: bytes) -> None:
    """A config.json that was broken in any way is told of, with its name."""
    try:
        document = parse_object(data)
    except BadDataError as error:
        told(error)
        return
    _check_settings(document)


@given(st.dictionaries(st.sampled_from(_SETTINGS) | texts, values, max_size=4))
def test_any_object_is_settings_or_a_config_error(document: dict[str, Any]) -> None:
    """Whatever stands under the keys, a setting is within its bounds."""
    _check_settings(document)


def _check_settings(document: dict[str, Any]) -> None:
    try:
        settings = read_settings(document, "config.json")
    except ConfigError as error:
        told(error, "config.json: ")
        return
    assert 0 <= settings.max_retries <= MAX_MAX_RETRIES
    assert 0 <= settings.priority <= MAX_PRIORITY
    assert settings.backoff_base >= 1
    assert 0 <= settings.backoff_jitter <= 1
    assert set(settings_document(settings)) == set(_SETTINGS)


@given(
    st.lists(st.binary() | st.sampled_from(TEXTS), max_size=5), st.sampled_from([b"\n", b"\r\n"])
)
@example([b"true", b"true"], b"\r\n")
@example(['{"command": "x"}'.encode("utf-16")], b"\n")
@example([b'{"command": "x", "id": "a"}'] * 2, b"\n")
@example([b"[" * 20_000], b"\n")
def test_any_lines_are_jobs_or_an_error_that_names_one(lines: list[bytes], end: bytes) -> None:
    """All lines are jobs that come back as they were written, or one of them is at fault."""
    submitter = Submitter(Options(here="/"), Settings(), NOON)
    data = end.join(lines)
    try:
        submitter.batch(data.splitlines(keepends=True))
    except QueuectlError as error:
        told(error, "line ")
        return
    for job in submitter.jobs:
        assert decode_job(encode_job(job), "other", DEFAULTS) == job
    assert len({job.id for job in submitter.jobs}) == len(submitter.jobs)


@given(texts)
def test_any_text_is_an_id_or_refused(text: str) -> None:
    """An id is never a path, nor anything that a terminal obeys, and names its logs."""
    try:
        job_id = check_id(text)
    except BadDataError as error:
        told(error)
        return
    assert job_id == text
    assert os.path.basename(text) == text
    assert text.isascii()
    assert text.isprintable()
    assert parse_log_name(log_name(text, 7)) == (text, 7)


@given(texts | st.from_regex(r"[0-9 ,-]*", fullmatch=True), st.sampled_from(sorted(NO_RULE)))
def test_any_text_is_a_list_of_codes_or_refused(text: str, rule: str) -> None:
    """A list that is accepted is its own normal form, and can be asked."""
    try:
        codes = check_codes(text, rule)
    except UsageError as error:
        told(error)
        return
    assert check_codes(codes, rule) == codes
    if codes != NO_RULE[rule]:
        assert any(includes(codes, code) for code in range(1, 256))
        assert not includes(codes, 0)


@given(texts | st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:.+Z-]*)?", fullmatch=True))
@example("0001-01-01T00:00:00+14:00")
@example("9999-12-31T23:59:59-14:00")
@example("2026-01-01T00:00:00+23:59:59.999999")
@example("0001-01-01")
@example("9999-12-31T23:59:59.999999")
@example("2026-W53-7")
def test_any_text_is_an_instant_or_refused(text: str) -> None:
    """An instant is aware, and in UTC."""
    try:
        instant = parse_instant(text)
    except UsageError as error:
        told(error)
        return
    assert instant.utcoffset() == NOON.utcoffset()


_tallies = st.dictionaries(
    st.sampled_from(["outcomes", "lengths", "seconds"]),
    values
    | st.dictionaries(st.sampled_from(["lost", "failed"]), numbers)
    | st.lists(st.integers(0), min_size=11, max_size=11),
)


@given(_tallies)
def test_any_object_is_a_tally_or_none(document: dict[str, Any]) -> None:
    """A tally can be added to another one, written, and compared."""
    try:
        tally = tally_from(document)
    except ValueError:
        return
    assert tally_from(json.loads(json.dumps(tally_document(tally)))) == tally_from(
        tally_document(tally)
    )
    assert joined(tally, Tally()) == tally


@given(
    st.dictionaries(
        st.sampled_from(["name", "pid", "host", "since", "job", "attempt", "slot", "recent"]),
        values,
        max_size=3,
    ),
    _tallies,
)
def test_any_object_is_the_record_of_a_worker_or_none(
    changes: dict[str, Any], tally: dict[str, Any]
) -> None:
    """What is read of a record can be shown, compared and hashed."""
    good = {"name": "w-1", "pid": 1, "host": "h", "since": "2026-01-01"}
    with tempfile.TemporaryFile() as file:
        file.write(json.dumps(good | changes | tally).encode())
        file.flush()
        try:
            record, _ = _read_record(file.fileno())
        except ValueError:
            return
    assert {(record.job, record.attempt)}
    assert record.since <= NOON or record.since > NOON
    assert check_id(record.name)


_WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


@pytest.fixture
def quiet_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Return what runs a command whose words are anything, on an empty store that stays so."""
    from queuectl.cli.group import run

    def call(*words: str) -> Result:
        capsys.readouterr()
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))  # for the word -
        code = run(["--store", str(tmp_path / "store"), *words])
        return Result(code, *capsys.readouterr())

    return call


@pytest.mark.parametrize(
    "words",
    [
        ("enqueue", "true", "--id"), ("enqueue", "true", "--priority"),
        ("enqueue", "true", "--env"),
        ("enqueue", "true", "--max-retries"), ("enqueue", "true", "--timeout"), ("show",),
        ("enqueue", "true", "--run-at"), ("enqueue", "true", "--delay"), ("list", "--state"),
        ("enqueue", "true", "--retry-on"), ("enqueue", "true", "--cwd"), ("list", "--limit"),
        ("enqueue", "true", "--after"), ("list", "--sort"), ("config", "get"),
        ("logs", "x", "--tail"),
        ("config", "set", "priority"), ("cancel",), ("wait", "x", "--timeout"), ("enqueue",),
        ("purge", "--older-than"), ("list", "--command-matches"), ("dlq", "show"), ("help",),
        ("worker", "stop", "--timeout"), ("completion",), (),
    ],
    ids=" ".join,
)  # fmt: skip
def test_words_of_any_kind_are_answered(words: tuple[str, ...], quiet_run: Any) -> None:
    """An option that is anything is taken or refused, in one line, with a code that is told."""
    for word in (
        "", " ", "\x1b[2J", "a\nb", "-", "--", "-1", "0", "9" * 5000, "1e400", "nan", "{}", '{"',
        "[", "[" * 5000, '{"command": 1}', "../../x", "x" * 10_000, "\udcff", "é", "true", "None",
        "=", "A=\udcff", "[a", "(" * 200, "0001-01-01T00:00:00+14:00", "1w2w", "/", "~", "none",
    ):  # fmt: skip
        result = quiet_run(*words, word)
        assert result.exit_code in (0, 2, 65, 66, 75, 78), (word[:50], result)
        assert "Traceback" not in result.stderr
        errors = [each for each in result.stderr.splitlines() if each.startswith("Error: ")]
        assert len(errors) == (result.exit_code != 0 and "Usage: " not in result.stdout), result
