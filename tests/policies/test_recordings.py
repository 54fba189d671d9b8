"""The file of recorded requests: its schema, and what a reader makes of files that broke off."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.recordings import (
    VERSION,
    Feedback,
    FeedbackLine,
    RecordedRequest,
    RecordedSample,
    RecordingError,
    parse_recording,
    read_recording,
)


def request_line(number: int) -> bytes:
    """The line of a request with this number as its id."""
    sample = RecordedSample(text="It is ü.", answer=None)
    return RecordedRequest(version=VERSION, id=str(number), samples=[sample]).json_line()


def ids(path: Path) -> list[str | None]:
    """The ids of the requests that can be read."""
    return [line.request.id for line in read_recording(path).lines]


def lines(*fields: dict[str, Any]) -> list[str]:
    """One line of JSON for each object."""
    return [json.dumps(line) for line in fields]


def test_only_fields_that_were_set_are_written() -> None:
    """A null answer says that there is none; a missing one says nothing."""
    request = RecordedRequest(samples=[RecordedSample(answer=None), RecordedSample(text="7")])
    assert request.json_line() == b'{"samples":[{"answer":null},{"text":"7"}]}\n'
    (line,) = parse_recording([request.json_line()]).lines
    assert [sample.states_answer for sample in line.request.samples] == [True, False]


def test_a_file_without_versions_is_read() -> None:
    """It has no conversation or session; the scorer's collector wrote the level alone as its budget."""
    first, second = parse_recording(
        lines(
            {"question": "3 + 4?", "samples": [{"text": "7"}], "budget": {"effort": "low", "samples": 1}},
            {"question": "3 + 4?", "samples": [{"text": "7"}], "budget": "high"},
        )
    ).lines
    assert (first.request.version, first.request.messages, first.request.training_allowed) == (1, None, True)
    assert [line.request.budget and line.request.budget.effort for line in (first, second)] == ["low", "high"]


def test_a_version_of_the_future_is_refused() -> None:
    """Its fields may mean something else; the message names the line and the version."""
    with pytest.raises(RecordingError, match="line 2: has version 9; this release reads versions up to 2"):
        parse_recording(["", *lines({"version": 9, "samples": [{"text": "7"}]})])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[]", "line 1: must be a JSON object"),
        ('{"question": "3 + 4?"}', "line 1: samples: Field required"),
        ('{"samples": [1]}', "line 1: samples.0"),
        ('{"samples": [{"text": "7"}], "training_allowed": "no"}', "line 1: training_allowed"),
        ('{"feedback": {"id": "x", "rating": 5}}', "line 1: feedback.rating"),
    ],
)
def test_a_mistake_in_the_data_is_named(line: str, message: str) -> None:
    """JSON that breaks the schema was never torn, so it is an error with its line and field."""
    with pytest.raises(RecordingError, match=message):
        parse_recording([line])


def test_torn_lines_are_skipped_and_counted() -> None:
    """The notice says how many there are and where the first is; no notice, where there are none."""
    good = request_line(1)
    recording = parse_recording([good, good[:20], b"", good, b"\xff" + good, good[-9:]])
    assert [line.number for line in recording.lines] == [1, 4]
    assert recording.notice == "3 lines could not be read and were skipped, the first at line 2."
    assert parse_recording([good]).notice is None
    assert parse_recording([good, b"{"]).notice == "1 line could not be read and was skipped: line 2."


def test_a_file_of_torn_lines_is_an_error(tmp_path: Path) -> None:
    """It names the file and the first line; an empty file is none."""
    path = tmp_path / "t.jsonl"
    path.write_text("{\n{", encoding="utf-8")
    with pytest.raises(RecordingError, match=r"t\.jsonl: no line can be read; line 1: "):
        read_recording(path)
    path.write_text("\n", encoding="utf-8")
    assert read_recording(path).lines == ()


@given(st.data())
def test_a_cut_costs_the_line_that_it_hits(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Wherever a file breaks off, all lines before that place are read, gzipped or not."""
    batches = [b"".join(request_line(10 * batch + i) for i in range(3)) for batch in range(3)]
    packed = data.draw(st.booleans())
    blocks = [gzip.compress(batch) if packed else batch for batch in batches]
    whole = b"".join(blocks)
    cut = data.draw(st.integers(len(blocks[0]), len(whole)))
    path = tmp_path_factory.getbasetemp() / "cut.jsonl"
    path.write_bytes(whole[:cut])
    every = ["0", "1", "2", "10", "11", "12", "20", "21", "22"]
    read = ids(path)
    assert read == every[: len(read)]
    if packed:
        assert len(read) >= 3 * sum(len(b"".join(blocks[: n + 1])) <= cut for n in range(3))
    else:
        assert len(read) >= whole[:cut].count(b"\n")


@given(st.data())
def test_members_after_a_torn_one_are_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A gateway that was killed in a batch and started again goes on behind what it left."""
    first, torn, last = (gzip.compress(request_line(number)) for number in range(3))
    cut = data.draw(st.integers(1, len(torn) - 9))
    path = tmp_path_factory.getbasetemp() / "killed.jsonl.gz"
    path.write_bytes(first + torn[:cut] + last)
    assert {"0", "2"} <= set(ids(path))
    assert read_recording(path).notice is not None


def test_one_line_may_span_members(tmp_path: Path) -> None:
    """As `cat` of two gzipped files leaves it where the first has no last line break."""
    path = tmp_path / "t.jsonl.gz"
    line = request_line(1)
    path.write_bytes(gzip.compress(line[:9]) + gzip.compress(line[9:]) + gzip.compress(request_line(2)))
    assert ids(path) == ["1", "2"]


def test_feedback_belongs_to_the_latest_request_before_it() -> None:
    """Feedback adds up and later words count; without its request in the file it says nothing."""
    sample = {"samples": [{"text": "7"}]}
    recording = parse_recording(
        lines(
            {"feedback": {"id": "a", "rating": 1}},
            {"id": "a", **sample},
            {"id": "a", **sample},
            {"id": "b", **sample, "feedback": {"correct": False}},
            {"feedback": {"id": "a", "rating": 1, "comment": "hm"}},
            {"feedback": {"id": "a", "rating": -1, "answer": "8"}},
            {"feedback": {"id": "b", "correct": True}},
        )
    )
    old, new, other = (line.request.feedback for line in recording.lines)
    assert recording.has_feedback
    assert old is None
    assert new is not None
    assert (new.rating, new.answer, new.comment) == (-1, "8", "hm")
    assert other is not None
    assert other.correct is True
    assert not parse_recording(lines(sample)).has_feedback


@pytest.mark.parametrize(
    ("samples", "winner", "returned"),
    [(1, None, "0"), (3, 2, "2"), (3, None, None), (3, 7, None)],
)
def test_the_returned_sample(samples: int, winner: int | None, returned: str | None) -> None:
    """It is the only one or the vote's choice; else nobody knows."""
    request = RecordedRequest(
        samples=[RecordedSample(text=str(number)) for number in range(samples)], winner=winner
    )
    assert (request.returned and request.returned.text) == returned


def test_lines_that_training_may_not_use() -> None:
    """They are left out and counted; a line that says nothing of it may be used."""
    sample = {"samples": [{"text": "7"}]}
    allowed, forbidden = parse_recording(
        lines({"id": "a", **sample}, {"id": "b", "training_allowed": False, **sample})
    ).for_training()
    assert [line.request.id for line in allowed.lines] == ["a"]
    assert forbidden == 1


def test_errors_do_not_quote_what_users_wrote() -> None:
    """They reach logs, which are read by more people than recordings are."""
    with pytest.raises(ValueError, match="1 validation error") as raised:
        FeedbackLine.model_validate({"feedback": {"correct": "I live in Ulm"}})
    assert "Ulm" not in str(raised.value)
    with pytest.raises(ValueError, match="surrogates") as raised:
        RecordedRequest(samples=[RecordedSample(text="7")], messages=[{"content": "Ulm \ud83d"}]).json_line()
    assert "Ulm" not in str(raised.value)


def test_feedback_lines_have_a_version() -> None:
    """As all lines do."""
    line = FeedbackLine(version=VERSION, feedback=Feedback(id="a", rating=1), time="now").json_line()
    assert json.loads(line) == {"version": 2, "feedback": {"id": "a", "rating": 1}, "time": "now"}
