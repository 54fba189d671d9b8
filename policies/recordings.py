"""The schema of recorded requests and feedback, and the reader of files that hold them.

A recording is a file of JSON lines, gzipped or not. The gateway's writer, `thinkgate replay`, feedback,
training and the scorer's collector all use the types below, so a field is known here and nowhere else.

- `{"version": 2, "samples": [...], ...}` is one answered request, see `RecordedRequest`.
- `{"version": 2, "feedback": {"id": ..., ...}, "time": ...}` is feedback on one, see `Feedback`.

A line without a version is of version 1: it has no conversation, key, session or alias, and its samples
have no model. Both versions are read alike. A field that is left out is unknown; only what was set is
written, so that `null` stays a statement of its own ("this sample has no answer").

A line that is no JSON was torn while it was written, as when a machine lost its power. The reader skips
such lines and counts them. A JSON object that breaks the schema is a mistake in the data, and an error
that names its line.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StrictBool, ValidationError, field_validator
from pydantic_core import from_json

__all__ = [
    "VERSION",
    "ContentLogprobs",
    "Feedback",
    "FeedbackLine",
    "RecordedLine",
    "RecordedRequest",
    "RecordedSample",
    "RecordedSetting",
    "Recording",
    "RecordingError",
    "TokenLogprob",
    "TopLogprob",
    "parse_recording",
    "read_recording",
]

VERSION = 2
"""The version that is written. Files of every version up to it are read."""

_GZIP = b"\x1f\x8b\x08"
_CHUNK = 16_384  # bytes handed to a decompressor at once; a member's end copies at most as many


class RecordingError(Exception):
    """The recording can't be used; the message names the line and the problem."""


class _Schema(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True, frozen=True, hide_input_in_errors=True)

    def json_line(self) -> bytes:
        """Return a line of JSON with the fields that were set. Raises ValueError for broken Unicode."""
        return self.model_dump_json(exclude_unset=True).encode() + b"\n"


class TopLogprob(_Schema):
    """One alternative to a token."""

    logprob: float


class TokenLogprob(_Schema):
    """One token's log probability and its alternatives'. The text of tokens is not kept."""

    logprob: float
    top_logprobs: list[TopLogprob] = []


class ContentLogprobs(_Schema):
    """The form in which OpenAI wraps logprobs."""

    content: list[TokenLogprob] | None = None


class RecordedSample(_Schema):
    """One finished sample. It has a text or an answer; a redacted one keeps its answer."""

    model: str | None = None
    """The model that the upstream says it used."""
    text: str | None = None
    reasoning: str | None = None
    """The thinking."""
    tool_calls: list[dict[str, Any]] | None = None
    answer: str | None = None
    """The answer, believed over the text. Null: the sample has none, and no vote."""
    correct: StrictBool | None = None
    """Whether the answer is correct, believed over the grader."""
    tokens: Annotated[int, Field(ge=0)] | None = None
    """Tokens generated, thinking included."""
    reasoning_tokens: Annotated[int, Field(ge=0)] | None = None
    finish_reason: str | None = None
    """How the sample ended; "length" means that it was cut off and has no vote."""
    score: FiniteFloat | None = None
    """The scorer's weight in [0, 1]; a file with a score outside holds logits."""
    logprobs: ContentLogprobs | list[TokenLogprob] | None = None
    effort: str | None = None
    """The budget level at which the sample was drawn."""

    @property
    def truncated(self) -> bool:
        """Whether a token limit cut the sample off."""
        return self.finish_reason == "length"

    @property
    def states_answer(self) -> bool:
        """Whether the recording says which answer the sample has, or that it has none."""
        return "answer" in self.model_fields_set

    @property
    def token_logprobs(self) -> list[TokenLogprob]:
        """The logged tokens; empty where none were recorded."""
        if isinstance(self.logprobs, ContentLogprobs):
            return self.logprobs.content or []
        return self.logprobs or []


class RecordedSetting(_Schema):
    """The reasoning budget and the sampling request under which the samples were drawn."""

    asked: str | None = None
    """The budget in the client's own words."""
    effort: str | None = None
    """The level."""
    thinking_tokens: int | None = None
    """The thinking limit. Null: no limit."""
    samples: int | None = None
    """The most samples that the request allowed."""
    vote: str | None = None
    scorer: str | None = None
    stop: str | None = None
    window: int | None = None
    threshold: float | None = None


class Feedback(_Schema):
    """What a client says of a recorded answer."""

    id: str = Field(default="", description="The completion's own id, or its reply's X-Request-Id.")
    rating: Literal[1, -1] | None = Field(
        default=None, description="1: the user liked the answer. -1: disliked it."
    )
    correct: StrictBool | None = Field(default=None, description="Whether the returned answer was right.")
    answer: str | None = Field(default=None, description="The right answer.")
    comment: str | None = Field(default=None, description="Anything else.")

    def merge(self, later: Feedback) -> Feedback:
        """Return both as one; where both say something, the later word counts."""
        return self.model_copy(update=later.model_dump(exclude_none=True, exclude={"id"}))


class FeedbackLine(_Schema):
    """A line of feedback on a request that an earlier line records."""

    version: int = 1
    feedback: Feedback
    time: str | None = None


class RecordedRequest(_Schema):
    """One answered request, or one problem with samples that were drawn to be replayed."""

    version: int = 1
    id: str | None = None
    """The completion's id."""
    request_id: str | None = None
    time: str | None = None
    """When it was answered, in UTC."""
    key_name: str | None = None
    """The name of the key that asked. The key itself is never written."""
    session: str | None = None
    """The client's `X-Session-Id`."""
    training_allowed: StrictBool = True
    """Whether training may use the line."""
    model: str | None = None
    """The model that answered, under the upstream's name."""
    alias: str | None = None
    """The alias that the client named, if it named one."""
    target: str | None = None
    """The alias's target that the request was routed to."""
    question: str | None = None
    """The text of the user's last message."""
    messages: list[dict[str, Any]] | None = None
    """The conversation in Chat Completions form: system, every turn, tool results.

    An image part is `{"type": "image", "sha256", "media_type"}` where the client sent the image, and
    `{"type": "image", "url"}` where it sent an address, which is never fetched.
    """
    tools: list[dict[str, Any]] | None = None
    """The tools that the client offered."""
    answer: str | None = None
    """The correct answer, where it is known."""
    tolerance: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] | None = None
    """How far a right number may lie from the answer, where the data set has such a rule."""
    source: str | None = None
    """The data set that the question comes from."""
    extra: dict[str, Any] = {}
    """What else a training problem holds."""
    budget: RecordedSetting | None = None
    """The setting. In version 1 a bare string is its level."""
    samples: Annotated[list[RecordedSample], Field(min_length=1)]
    """Every finished sample, in the order of launch."""
    winner: Annotated[int, Field(ge=0)] | None = None
    """The index in `samples` of the one that the vote chose. Null: there was no vote, or no winner."""
    tokens: int | None = None
    """All tokens generated, aborted samples included."""
    reasoning_tokens: int | None = None
    seconds: float | None = None
    aborted: int | None = None
    failed: int | None = None
    feedback: Feedback | None = None
    """What clients said of the answer; the reader puts it here from lines of its own."""

    @field_validator("budget", mode="before")
    @classmethod
    def _level_alone(cls, value: object) -> object:
        return {"effort": value} if isinstance(value, str) else value

    @property
    def returned(self) -> RecordedSample | None:
        """The sample that the client got: the only one, or the vote's choice. None: not known."""
        index = 0 if self.winner is None and len(self.samples) == 1 else self.winner
        return self.samples[index] if index is not None and index < len(self.samples) else None


@dataclass(frozen=True, slots=True)
class RecordedLine:
    """A request and the number of its line in the file."""

    number: int
    request: RecordedRequest


@dataclass(frozen=True, slots=True)
class Recording:
    """The requests of one file, each with its feedback.

    `torn` holds the numbers of the lines that could not be read, or of the lines where a gzip member
    breaks off.
    """

    lines: tuple[RecordedLine, ...]
    has_feedback: bool = False
    torn: tuple[int, ...] = ()

    @property
    def notice(self) -> str | None:
        """One sentence on what was skipped; None where the file was whole."""
        if not self.torn:
            return None
        first = self.torn[0]
        if len(self.torn) == 1:
            return f"1 line could not be read and was skipped: line {first}."
        return f"{len(self.torn)} lines could not be read and were skipped, the first at line {first}."

    def for_training(self) -> tuple[Recording, int]:
        """Return the recording without the lines that training may not use, and how many these were."""
        allowed = tuple(line for line in self.lines if line.request.training_allowed)
        return replace(self, lines=allowed), len(self.lines) - len(allowed)


def read_recording(path: Path) -> Recording:
    """Read a file, gzipped or not, past every tear in it. Raises RecordingError and OSError."""
    raw = path.read_bytes()
    try:
        return parse_recording(_gzip_lines(raw) if raw.startswith(_GZIP[:2]) else raw.split(b"\n"))
    except RecordingError as error:
        raise RecordingError(f"{path}: {error}") from error


def parse_recording(lines: Iterable[str | bytes | None]) -> Recording:
    """Return the requests, joined with their feedback. None stands for a tear. Raises RecordingError.

    Feedback belongs to the latest request before it that has its id; later feedback adds to it. Feedback
    whose request is not in the file, as after a rotation, says nothing.
    """
    requests: list[RecordedLine] = []
    indices: dict[str, int] = {}
    torn: list[int] = []
    problem = ""
    has_feedback = False
    for number, text in enumerate(lines, 1):
        if text is not None and not text.strip():
            continue
        try:
            if text is None:
                raise ValueError("the gzip member breaks off")
            fields = from_json(text)
        except ValueError as error:
            torn.append(number)
            problem = problem or str(error)
            continue
        entry = _entry(number, fields)
        if isinstance(entry, RecordedRequest):
            if entry.id is not None:
                indices[entry.id] = len(requests)
            requests.append(RecordedLine(number, entry))
            has_feedback = has_feedback or entry.feedback is not None
            continue
        has_feedback = True
        if (index := indices.get(entry.id)) is not None:
            requests[index] = _with_feedback(requests[index], entry)
    if torn and not requests and not has_feedback:
        raise RecordingError(f"no line can be read; line {torn[0]}: {problem}")
    return Recording(tuple(requests), has_feedback, tuple(torn))


def _entry(number: int, fields: object) -> RecordedRequest | Feedback:
    """Return what a line says. Raises RecordingError."""
    if not isinstance(fields, dict):
        raise RecordingError(f"line {number}: must be a JSON object")
    version = fields.get("version", 1)
    if isinstance(version, int) and version > VERSION:
        raise RecordingError(
            f"line {number}: has version {version}; this release reads versions up to {VERSION}"
        )
    try:
        if "feedback" in fields and "samples" not in fields:
            return FeedbackLine.model_validate(fields).feedback
        return RecordedRequest.model_validate(fields)
    except ValidationError as error:
        raise RecordingError(f"line {number}: {_first_problem(error)}") from error


def _with_feedback(line: RecordedLine, later: Feedback) -> RecordedLine:
    request = line.request
    feedback = later if request.feedback is None else request.feedback.merge(later)
    return replace(line, request=request.model_copy(update={"feedback": feedback}))


def _first_problem(error: ValidationError) -> str:
    """Return the first problem in words: the field and what is wrong with it."""
    problem = error.errors(include_input=False, include_url=False)[0]
    field = ".".join(str(part) for part in problem["loc"])
    return f"{field}: {problem['msg']}" if field else problem["msg"]


def _gzip_lines(raw: bytes) -> Iterator[bytes | None]:
    """Yield the lines of all gzip members; None in place of a line in which a member breaks off.

    After a broken member the reader goes on at the next one, as a gateway that was killed in the middle
    of a batch and started again leaves them.
    """
    text = b""
    start = 0
    while 0 <= start < len(raw):
        part, end = _gzip_member(raw, start)
        *lines, text = (text + part).split(b"\n")
        yield from lines
        if end is None:
            yield None
            text = b""
        start = raw.find(_GZIP, start + 1) if end is None else end
    yield text


def _gzip_member(raw: bytes, start: int) -> tuple[bytes, int | None]:
    """Return a member's text and where the member ends; None where it breaks off."""
    member = zlib.decompressobj(wbits=31)
    parts: list[bytes] = []
    position = start
    try:
        while not member.eof:
            if position >= len(raw):
                return b"".join(parts), None
            parts.append(member.decompress(raw[position : position + _CHUNK]))
            position += _CHUNK
    except zlib.error:
        return b"".join(parts), None
    return b"".join(parts), min(position, len(raw)) - len(member.unused_data)
