"""The gateway records its traffic for replay and training."""

import base64
import gzip
import hashlib
import json
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.app import create_app
from gateway.cli import main
from gateway.config import ConfigError, Settings, load_settings
from gateway.http.auth import key_digest
from gateway.recordings.writer import Recorder, RecorderFailed
from tests.fakes import ScriptedUpstream, Text, calls, request_for, run_to_end, says, thinks
from tests.serving import serving

PATH = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "What is 3 + 4?"}]}
VOTE = {"X-Samples": "3", "X-Stop": "none"}
SEVEN, EIGHT = says("The answer is ", "\\boxed{7}."), says("The answer is ", "\\boxed{8}.")


@asynccontextmanager
async def gateway(upstream: ScriptedUpstream, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client of a served gateway, which has shut down when the block ends."""
    app = create_app(Settings(**settings), upstream)
    async with serving(app) as url, httpx.AsyncClient(base_url=url) as client:
        yield client


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the recorded lines."""
    raw = path.read_bytes()
    text = gzip.decompress(raw) if path.suffix == ".gz" else raw
    return [json.loads(line) for line in text.splitlines()]


async def test_a_vote_is_recorded_with_its_samples(tmp_path: Path) -> None:
    """The line has the question, the samples in order of launch, the winner, the setting and the cost."""
    path = tmp_path / "traffic.jsonl"
    upstream = ScriptedUpstream(EIGHT, thinks(2), SEVEN)
    async with gateway(upstream, record_to=path) as client:
        reply = await client.post(PATH, json=ASK, headers={**VOTE, "X-Reasoning-Budget": "low"})
    (line,) = lines(path)
    assert line["question"] == "What is 3 + 4?"
    assert sorted(sample["answer"] for sample in line["samples"]) == ["7", "7", "8"]
    assert line["samples"][line["winner"]]["answer"] == "7"
    assert "step0 step1" in "".join(sample["reasoning"] for sample in line["samples"])
    assert line["budget"]["effort"] == "low"
    assert (line["budget"]["samples"], line["budget"]["stop"]) == (3, "none")
    assert line["tokens"] == reply.json()["usage"]["completion_tokens"]
    assert sum(sample["tokens"] for sample in line["samples"]) == line["tokens"]
    assert line["time"].endswith("+00:00")


@pytest.mark.parametrize("stream", [False, True])
async def test_single_requests_are_recorded_streamed_or_not(tmp_path: Path, stream: bool) -> None:
    """Without a vote there is one sample and no winner; the text parts of a message are joined."""
    path = tmp_path / "traffic.jsonl"
    parts = [{"type": "text", "text": "3"}, {"type": "image_url"}, {"type": "text", "text": "+ 4?"}]
    async with gateway(ScriptedUpstream(SEVEN), record_to=path) as client:
        ask = {**ASK, "messages": [{"role": "user", "content": parts}], "stream": stream}
        assert (await client.post(PATH, json=ask)).status_code == 200
    (line,) = lines(path)
    assert (len(line["samples"]), line["winner"]) == (1, None)
    assert line["samples"][0]["text"] == "The answer is \\boxed{7}."
    assert line["question"] == "3\n+ 4?"


async def test_nothing_is_recorded_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default writes no file anywhere, and a failed request is never recorded."""
    monkeypatch.chdir(tmp_path)
    async with gateway(ScriptedUpstream(SEVEN)) as client:
        await client.post(PATH, json=ASK)
        assert "unrecorded" not in (await client.get("/metrics")).text
    assert os.listdir(tmp_path) == []
    async with gateway(ScriptedUpstream(SEVEN), record_to=tmp_path / "t.jsonl") as client:
        assert (await client.post(PATH, json=ASK, headers={"X-Vote": "lottery"})).status_code == 400
        assert "thinkgate_requests_unrecorded 0.0" in (await client.get("/metrics")).text
    assert lines(tmp_path / "t.jsonl") == []


async def test_redacted_parts_are_never_written(tmp_path: Path) -> None:
    """Answers, tokens and the vote stay; the user's words, the thinking and the texts are left out."""
    path = tmp_path / "traffic.jsonl"
    redact = ("question", "reasoning", "text")
    async with gateway(ScriptedUpstream(thinks(2)), record_to=path, record_redact=redact) as client:
        await client.post(PATH, json=ASK, headers={**VOTE, "X-Reasoning-Budget": "low"})
    (line,) = lines(path)
    assert "question" not in line
    assert all(
        sample.keys() == {"model", "answer", "tokens", "reasoning_tokens", "finish_reason"}
        for sample in line["samples"]
    )
    assert [sample["answer"] for sample in line["samples"]] == ["7", "7", "7"]
    assert "step" not in path.read_text()
    assert "3 + 4" not in path.read_text()


async def test_a_truncated_sample_has_no_answer(tmp_path: Path) -> None:
    """As in the vote, since a reply that was cut off may have been about to change its mind."""
    path = tmp_path / "traffic.jsonl"
    async with gateway(ScriptedUpstream(says("\\boxed{7}", finish="length")), record_to=path) as client:
        await client.post(PATH, json=ASK)
    (line,) = lines(path)
    assert (line["samples"][0]["answer"], line["samples"][0]["finish_reason"]) == (None, "length")


@pytest.mark.parametrize("name", ["traffic.jsonl", "traffic.jsonl.gz"])
async def test_replay_reads_what_was_recorded(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Replay measures agreement on a file that two gateways wrote, gzipped or not, redacted or not."""
    path = tmp_path / name
    for redact in ((), ("text",)):
        async with gateway(ScriptedUpstream(EIGHT, SEVEN), record_to=path, record_redact=redact) as client:
            await client.post(PATH, json=ASK, headers=VOTE)
    assert len(lines(path)) == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert main(["replay", str(path)]) == 2
    assert "--agreement" in capsys.readouterr().err
    assert main(["replay", str(path), "--agreement", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    accuracies = {row["name"]: row["accuracy"] for row in report["settings"]}
    assert report["measure"] == "agreement"
    assert accuracies["pass@1"] == pytest.approx(200 / 3, abs=0.001)
    assert accuracies["majority"] == 100
    assert main(["replay", str(path), "--agreement"]) == 0
    assert "% agreeing" in capsys.readouterr().out


async def test_a_moved_file_is_begun_anew(tmp_path: Path) -> None:
    """Log rotation needs no signal: the next request goes into a new file of the old name."""
    path, old = tmp_path / "traffic.jsonl", tmp_path / "traffic.1"
    request = request_for()
    _, result = await run_to_end(ScriptedUpstream(SEVEN), request)
    for _ in range(2):
        recorder = Recorder(path)
        recorder.start()
        recorder.start()
        recorder.record(request, result)
        recorder.close()
        if not old.exists():
            path.rename(old)
    assert len(lines(path)) == len(lines(old)) == 1


async def test_a_full_queue_drops_and_never_waits(tmp_path: Path) -> None:
    """Requests beyond the queue are counted and lost; the queued ones are written."""
    request = request_for()
    _, result = await run_to_end(ScriptedUpstream(SEVEN), request)
    recorder = Recorder(tmp_path / "traffic.jsonl", queue_size=2)  # not started, so nothing drains it
    for _ in range(5):
        recorder.record(request, result)
    assert recorder.dropped == 3
    recorder.start()
    recorder.close()
    assert len(lines(tmp_path / "traffic.jsonl")) == 2


async def test_a_request_that_cannot_be_written_spoils_no_other(tmp_path: Path) -> None:
    """A reply with half a character can't be JSON: this request alone is lost, and counted."""
    request = request_for()
    _, broken = await run_to_end(ScriptedUpstream(says(Text("\ud83d"))), request)
    _, whole = await run_to_end(ScriptedUpstream(SEVEN), request)
    recorder = Recorder(tmp_path / "traffic.jsonl")
    recorder.start()
    for result in (broken, whole):
        recorder.record(request, result)
    recorder.close()
    assert (recorder.dropped, len(lines(tmp_path / "traffic.jsonl"))) == (1, 1)


def test_a_path_that_cannot_be_written_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The gateway says so in one sentence at its start, not at the first request."""
    path = tmp_path / "nowhere" / "traffic.jsonl"
    with pytest.raises(RecorderFailed, match="record_to"):
        Recorder(path).start()
    monkeypatch.setenv("THINKGATE_RECORD_TO", str(path))
    monkeypatch.setenv("THINKGATE_UPSTREAM", "http://127.0.0.1:9/v1")
    assert main(["serve", "--port", "0"]) == 1
    assert "nowhere" in capsys.readouterr().err


def test_redactions_are_a_list_in_the_environment() -> None:
    """They are separated by commas; an unknown one is refused with the allowed ones."""
    settings = load_settings(environ={"THINKGATE_RECORD_REDACT": "question, text"})
    assert settings.record_redact == ("question", "text")
    with pytest.raises(ConfigError, match="'question', 'reasoning' or 'text'"):
        load_settings(environ={"THINKGATE_RECORD_REDACT": "everything"})


PIXEL = b"\x89PNG\r\n\x1a\n not really"
PIXEL_URL = f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}"
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "You are terse."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": PIXEL_URL}},
            {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,!"}},
        ],
    },
    {"role": "assistant", "content": "A dot.", "reasoning_content": "Hm."},
    {"role": "user", "content": "And 3 + 4?"},
]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


async def test_the_whole_conversation_is_recorded(tmp_path: Path) -> None:
    """The line has every turn and the tools; an image becomes its hash, an address stays."""
    path = tmp_path / "traffic.jsonl"
    async with gateway(ScriptedUpstream(SEVEN), record_to=path) as client:
        await client.post(PATH, json={"model": "tiny", "messages": TALK, "tools": TOOLS})
    (line,) = lines(path)
    assert line["version"] == 2
    assert line["question"] == "And 3 + 4?"
    assert line["tools"] == TOOLS
    assert [message["role"] for message in line["messages"]] == ["system", "user", "assistant", "user"]
    assert line["messages"][0] == TALK[0]
    assert line["messages"][1]["content"][:3] == [
        {"type": "text", "text": "What is this?"},
        {"type": "image", "sha256": hashlib.sha256(PIXEL).hexdigest(), "media_type": "image/png"},
        {"type": "image", "url": "https://example.org/cat.png"},
    ]
    assert "base64" not in path.read_text(encoding="utf-8")
    assert os.listdir(tmp_path) == ["traffic.jsonl"]


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (
            "/v1/responses",
            {
                "instructions": "You are terse.",
                "input": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "input_text", "text": "What is this?"},
                            {"type": "input_image", "image_url": PIXEL_URL},
                        ],
                    }
                ],
            },
        ),
        (
            "/v1/messages",
            {
                "max_tokens": 99,
                "system": "You are terse.",
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "What is this?"},
                            {
                                "type": "image",
                                "source": {
                                    "type": "base64",
                                    "media_type": "image/png",
                                    "data": base64.b64encode(PIXEL).decode(),
                                },
                            },
                        ],
                    }
                ],
            },
        ),
    ],
)
async def test_conversations_have_one_form(tmp_path: Path, path: str, fields: dict[str, Any]) -> None:
    """The line is the same for every dialect."""
    file = tmp_path / "traffic.jsonl"
    async with gateway(ScriptedUpstream(SEVEN), record_to=file) as client:
        assert (await client.post(path, json={"model": "tiny", **fields})).status_code == 200
    (line,) = lines(file)
    image = {"type": "image", "sha256": hashlib.sha256(PIXEL).hexdigest(), "media_type": "image/png"}
    assert line["messages"] == [
        {"role": "system", "content": "You are terse."},
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]},
    ]


async def test_images_are_stored_on_request(tmp_path: Path) -> None:
    """They lie beside the file under their hashes, once each; those of a redacted conversation don't."""
    path, redacted = tmp_path / "traffic.jsonl", tmp_path / "redacted.jsonl"
    body = {"model": "tiny", "messages": TALK[1:2]}
    async with gateway(ScriptedUpstream(SEVEN), record_to=path, record_images=True) as client:
        for _ in range(2):
            await client.post(PATH, json=body)
    settings: dict[str, Any] = {"record_images": True, "record_redact": ("question",)}
    async with gateway(ScriptedUpstream(SEVEN), record_to=redacted, **settings) as client:
        await client.post(PATH, json=body)
    folder = tmp_path / "traffic.jsonl.images"
    hashes = [part["sha256"] for part in lines(path)[0]["messages"][0]["content"] if "sha256" in part]
    assert (folder / f"{hashes[0]}.png").read_bytes() == PIXEL
    assert sorted(path.stem for path in folder.iterdir()) == sorted(hashes)
    assert sorted(os.listdir(tmp_path)) == ["redacted.jsonl", "traffic.jsonl", "traffic.jsonl.images"]


async def test_an_image_that_cannot_be_stored_spoils_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The line is written, and the log says why its image is missing."""
    path = tmp_path / "traffic.jsonl"
    path.with_name("traffic.jsonl.images").write_text("in the way", encoding="utf-8")
    async with gateway(ScriptedUpstream(SEVEN), record_to=path, record_images=True) as client:
        await client.post(PATH, json={"model": "tiny", "messages": TALK})
    assert len(lines(path)) == 1
    assert "an image was not recorded" in caplog.text


async def test_a_line_says_who_asked_for_what(tmp_path: Path) -> None:
    """It has the key's name, the session, the alias with its target, and whether training may use it."""
    path, aliases = tmp_path / "traffic.jsonl", tmp_path / "aliases.toml"
    aliases.write_text('best = [{model = "tiny"}]', encoding="utf-8")
    keys = {
        "alice": {"secret_sha256": key_digest("a")},
        "bob": {"secret_sha256": key_digest("b"), "training_allowed": False},
    }
    async with gateway(ScriptedUpstream(SEVEN), record_to=path, keys=keys, aliases=aliases) as client:
        session = {"Authorization": "Bearer a", "X-Session-Id": "s-1"}
        await client.post(PATH, json={**ASK, "model": "best"}, headers=session)
        await client.post(PATH, json=ASK, headers={"Authorization": "Bearer b"})
    first, second = lines(path)
    wanted = {"key_name": "alice", "session": "s-1", "alias": "best", "target": "tiny", "model": "tiny"}
    assert {name: first[name] for name in wanted} == wanted
    assert (first["training_allowed"], second["training_allowed"]) == (True, False)
    assert second["key_name"] == "bob"
    assert not {"session", "alias", "target"} & second.keys()
    assert all(key["secret_sha256"] not in path.read_text(encoding="utf-8") for key in keys.values())


async def test_samples_are_recorded_in_full(tmp_path: Path) -> None:
    """Each has its model, tokens, thinking and score, and its tool calls if it made any."""
    path = tmp_path / "traffic.jsonl"
    async with gateway(ScriptedUpstream(thinks(2), SEVEN, calls()), record_to=path) as client:
        vote = {**VOTE, "X-Samples": "2", "X-Scorer": "agreement"}
        await client.post(PATH, json=ASK, headers={**vote, "X-Reasoning-Budget": "low"})
        await client.post(PATH, json={**ASK, "stream": True})
    voted, single = lines(path)
    thinking = next(sample for sample in voted["samples"] if sample["reasoning"])
    assert thinking["model"] == "tiny"
    assert 0 < thinking["reasoning_tokens"] < thinking["tokens"]
    assert all(0 <= sample["score"] <= 1 for sample in voted["samples"])
    (sample,) = single["samples"]
    assert [call["function"]["name"] for call in sample["tool_calls"]] == ["weather", "weather"]


async def test_what_the_upstream_says_of_a_sample_is_recorded(tmp_path: Path) -> None:
    """The line has its name for the model, and logprobs as bare numbers, which undo no redaction."""
    path = tmp_path / "traffic.jsonl"
    top = [{"token": "Ulm", "logprob": -0.123456}, {"token": "Jena", "logprob": -2.5}]
    content = [{"token": "Ulm", "logprob": -0.123456, "top_logprobs": top}]
    request = request_for()
    _, result = await run_to_end(ScriptedUpstream(SEVEN), request)
    odd = {"content": [{"token": "Ulm"}]}
    recorder = Recorder(path, ("text",))
    recorder.start()
    for logprobs in ({"content": content}, odd, None):
        sample = replace(result.samples[0], logprobs=logprobs)
        recorder.record(request, replace(result, samples=(sample,), models={0: "tiny-2026"}))
    recorder.close()
    first, *others = (line["samples"][0] for line in lines(path))
    assert first["logprobs"] == [
        {"logprob": -0.1235, "top_logprobs": [{"logprob": -0.1235}, {"logprob": -2.5}]}
    ]
    assert all("logprobs" not in sample for sample in others)
    assert result.models == {0: "tiny"}
    assert first["model"] == "tiny-2026"
    assert "Ulm" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("redact", "left"),
    [
        (("reasoning",), {"role", "content"}),
        (("text",), {"role", "reasoning_content"}),
        (("text", "reasoning"), {"role"}),
    ],
)
async def test_redaction_reaches_earlier_turns(
    tmp_path: Path, redact: tuple[str, ...], left: set[str]
) -> None:
    """Thinking and text of earlier replies are left out as they are of samples; the users' turns stay."""
    path = tmp_path / "traffic.jsonl"
    request = replace(request_for(), body={"model": "tiny", "messages": TALK})
    _, result = await run_to_end(ScriptedUpstream(SEVEN), request_for())
    recorder = Recorder(path, redact)  # type: ignore[arg-type]
    recorder.start()
    recorder.record(request, result)
    recorder.close()
    (line,) = lines(path)
    assert line["messages"][2].keys() == left
    assert line["messages"][3] == TALK[3]
