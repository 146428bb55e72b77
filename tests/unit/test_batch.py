"""The jobs in the text of a batch: commands, comments, objects on a line and over many."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectl.batch import job_texts
from queuectl.errors import BadDocument


def texts(data: str) -> list[tuple[int, str]]:
    """Return the texts of the jobs of a batch, each with its line."""
    return [
        each[:2]
        for each in job_texts(data.encode("utf-8", "surrogateescape").splitlines(keepends=True))
    ]


def documents(data: str) -> list[Any]:
    """Return the objects of a batch that is all JSON."""
    return [json.loads(text) for _, text in texts(data)]


JOBS = [{"id": "a", "command": 'echo "}]{[" \\'}, {"command": "b", "env": {"X": "\n"}, "after": []}]
LISTED = "[\n  " + ",\n  ".join(map(json.dumps, JOBS)) + "\n]\n"  # as list --json prints it


@pytest.mark.parametrize(
    "data",
    [
        LISTED,
        json.dumps(JOBS),
        json.dumps(JOBS, indent=2),
        json.dumps(JOBS, indent=2).replace("},\n  {", "}, {"),
        json.dumps(JOBS, indent=2).replace("[\n  {", "[{", 1),
        json.dumps(JOBS, indent=2).replace("\n", "\r\n"),
        json.dumps(JOBS[:1]) + "\n" + json.dumps(JOBS[1:], indent=4),
        "\n".join(json.dumps(each, indent=2) for each in JOBS),
        "\n".join(map(json.dumps, JOBS)),
        "# comment\n\n[\n"
        + ",\n# no comment".join(map(json.dumps, JOBS)).replace("# no comment", "")
        + "]",
    ],
)
def test_json_may_be_laid_out_in_any_way(data: str) -> None:
    """What this program and others print is read back: arrays, and objects over many lines."""
    assert documents(data) == JOBS


def test_commands_stand_beside_json() -> None:
    """What only looks like JSON to a hasty reader is a command, and a # makes a comment."""
    data = """\
# nightly
make
[ -f x ] && y
[
  {"command": "a"},
  {
    "command": "b"
  }
]
 #x
{ echo; }
{
  "command": "c"
}
echo # d
[]
"""
    assert texts(data) == [
        (2, "make"),
        (3, "[ -f x ] && y"),
        (5, '{"command": "a"}'),
        (6, '{\n"command": "b"\n}'),
        (11, "{ echo; }"),
        (12, '{\n"command": "c"\n}'),
        (15, "echo # d"),
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a\n[\n{}\n", "line 2: the JSON array that begins here has no end"),
        ("{\n", "line 1: the JSON object that begins here has no end"),
        ('{\n"command": "a\n"}', "line 2: not a job document: bad JSON: a string has no end"),
        ("[\n{}\n] b", "line 3: 'b' follows the end of JSON on its line"),
        ("{\n} {}", "line 2: '{' follows the end of JSON on its line"),
        ("[\n{}\n1,{}]", "line 3: an array of jobs holds objects, and not '1'"),
        ("[[{}]]", "line 1: an array of jobs holds objects, and not '['"),
        ("[\n}", "line 2: an array of jobs holds objects, and not '}'"),
    ],
)
def test_what_is_no_batch_is_named_with_its_line(data: str, message: str) -> None:
    """An array that was cut off adds no job, and what stands between jobs is not lost."""
    with pytest.raises(BadDocument) as caught:
        texts(data)
    assert str(caught.value) == message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(
    jobs=st.lists(st.dictionaries(st.text(), json_values, min_size=1, max_size=4), max_size=4),
    indent=st.sampled_from([None, 0, 1, 2]),
    ascii_alone=st.booleans(),
)
def test_any_array_is_taken_apart(
    jobs: list[Any], indent: int | None, *, ascii_alone: bool
) -> None:
    """Each object comes out as it went in, whatever brackets and quotes its strings hold."""
    data = json.dumps(jobs, indent=indent, ensure_ascii=ascii_alone)
    lines = [each.encode("utf-8", "surrogatepass") + b"\n" for each in data.split("\n")]
    found = [json.loads(each.text) for each in job_texts(lines)]
    assert found == jobs
