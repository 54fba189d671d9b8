"""Feedback of clients, recorded next to the answers."""

import json
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from gateway.app import create_app
from gateway.cli import main
from gateway.config import Settings
from gateway.http.auth import key_digest
from gateway.recordings.lines import Provenance
from gateway.recordings.writer import Recorder
from tests.fakes import ScriptedUpstream, request_for, run_to_end, says
from tests.gateway.recordings.test_writer import ASK, PATH, VOTE, gateway, lines
from tests.serving import serving

FEEDBACK = "/v1/feedback"
SEVEN, EIGHT = says("The answer is ", "\\boxed{7}."), says("The answer is ", "\\boxed{8}.")


async def test_feedback_by_the_official_client(tmp_path: Path) -> None:
    """It names the completion's id, streamed or not; the recorded line holds its fields and time."""
    path = tmp_path / "traffic.jsonl"
    app = create_app(Settings(record_to=path), ScriptedUpstream(SEVEN))
    async with (
        serving(app) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        whole = await client.chat.completions.create(**ASK)
        remarks = {"rating": 1, "correct": True, "answer": "7", "comment": "thanks"}
        reply: Any = await client.post("/feedback", body={"id": whole.id, **remarks}, cast_to=object)
        stream = await client.chat.completions.create(**ASK, stream=True)
        streamed = [chunk.id async for chunk in stream][-1]
        await client.post("/feedback", body={"id": streamed, "rating": -1}, cast_to=object)
    assert reply == {"object": "feedback", "id": whole.id}
    first, good, second, bad = lines(path)
    assert (first["id"], second["id"]) == (whole.id, streamed)
    assert good["feedback"] == {"id": whole.id, **remarks}
    assert bad["feedback"] == {"id": streamed, "rating": -1}
    assert bad["time"].endswith("+00:00")


@pytest.mark.parametrize(
    ("path", "more"),
    [("/v1/responses", {"input": "3 + 4?"}), ("/v1/messages", {**ASK, "max_tokens": 99}), (PATH, ASK)],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_both_ids_work(tmp_path: Path, path: str, more: dict[str, Any], stream: bool) -> None:
    """In every dialect, the request's id works as well as the completion's; both name the same answer."""
    record = tmp_path / "traffic.jsonl"
    async with gateway(ScriptedUpstream(SEVEN), record_to=record) as client:
        own = {"X-Request-Id": "mine-1"}
        reply = await client.post(path, json={"model": "tiny", "stream": stream, **more}, headers=own)
        by_request = await client.post(FEEDBACK, json={"id": "mine-1", "correct": False})
        completion = by_request.json()["id"]
        by_completion = await client.post(FEEDBACK, json={"id": completion, "rating": 1})
    assert completion in reply.text
    assert (by_request.status_code, by_completion.status_code) == (200, 200)
    answer, *remarks = lines(record)
    assert (answer["id"], answer["request_id"]) == (completion, "mine-1")
    assert [line["feedback"]["id"] for line in remarks] == [completion, completion]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"rating": 1}, "id"),
        ({"id": "", "rating": 1}, "id"),
        ({"id": "x", "rating": 2}, "rating"),
        ({"id": "x", "rating": "1"}, "rating"),
        ({"id": "x", "correct": "yes"}, "correct"),
        ({"id": "x", "answer": ""}, "answer"),
        ({"id": "x", "answer": 7}, "answer"),
        ({"id": "x", "comment": "a" * 10_001}, "comment"),
        ({"id": "x", "stars": 5}, "stars"),
        ({"id": "x"}, None),
        ([], None),
    ],
)
async def test_a_mistake_is_named(tmp_path: Path, body: Any, param: str | None) -> None:
    """It gets a 400 in OpenAI's shape that names the field; nothing is recorded."""
    path = tmp_path / "traffic.jsonl"
    async with gateway(ScriptedUpstream(SEVEN), record_to=path) as client:
        reply = await client.post(FEEDBACK, json=body)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (400, param)
    assert (param or "body") in error["message"]
    assert lines(path) == []


async def test_an_unknown_id_is_a_404(tmp_path: Path) -> None:
    """Only recorded answers can get feedback."""
    async with gateway(ScriptedUpstream(SEVEN), record_to=tmp_path / "t.jsonl") as client:
        reply = await client.post(FEEDBACK, json={"id": "chatcmpl-0", "rating": 1})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "unknown_id")


async def test_only_the_answers_own_key_may_give_feedback(tmp_path: Path) -> None:
    """For other keys the answer does not exist, by either id, even if both sent the same request id."""
    path = tmp_path / "traffic.jsonl"
    keys = {name: {"secret_sha256": key_digest(name)} for name in ("alice", "bob")}
    alice, bob = ({"Authorization": f"Bearer {name}", "X-Request-Id": "mine"} for name in keys)
    async with gateway(ScriptedUpstream(SEVEN), record_to=path, keys=keys) as client:
        hers = (await client.post(PATH, json=ASK, headers=alice)).json()["id"]
        refusals = [
            await client.post(FEEDBACK, json={"id": name, "rating": -1}, headers=bob)
            for name in (hers, "mine")
        ]
        his = (await client.post(PATH, json=ASK, headers=bob)).json()["id"]
        for remark, headers in (({"rating": 1}, alice), ({"correct": False}, bob)):
            reply = await client.post(FEEDBACK, json={"id": "mine", **remark}, headers=headers)
            assert reply.status_code == 200
    assert [(reply.status_code, reply.json()["error"]["code"]) for reply in refusals] == [
        (404, "unknown_id")
    ] * 2
    remarks = [line["feedback"] for line in lines(path) if "feedback" in line]
    assert remarks == [{"id": hers, "rating": 1}, {"id": his, "correct": False}]
    assert key_digest("alice") not in path.read_text(encoding="utf-8")


async def test_without_a_recording_there_is_no_feedback() -> None:
    """The error names the missing setting."""
    async with gateway(ScriptedUpstream(SEVEN)) as client:
        reply = await client.post(FEEDBACK, json={"id": "x", "rating": 1})
    assert reply.status_code == 409
    assert "record_to" in reply.json()["error"]["message"]


async def test_comments_are_redacted_like_questions(tmp_path: Path) -> None:
    """Comments are the user's words too."""
    path = tmp_path / "traffic.jsonl"
    async with gateway(ScriptedUpstream(SEVEN), record_to=path, record_redact=("question",)) as client:
        answer = (await client.post(PATH, json=ASK)).json()
        await client.post(FEEDBACK, json={"id": answer["id"], "rating": 1, "comment": "I live in Ulm"})
    assert lines(path)[-1]["feedback"] == {"id": answer["id"], "rating": 1}


async def test_old_answers_are_forgotten(tmp_path: Path) -> None:
    """Memory stays bounded; a request id that occurs twice names the later answer."""
    request = request_for()
    _, result = await run_to_end(ScriptedUpstream(SEVEN), request)
    recorder = Recorder(tmp_path / "t.jsonl", remembered=2)
    for completion, request in (("a", "same"), ("b", "own"), ("c", "same")):
        recorder.record(request, result, Provenance(completion, request))
    names = [recorder.find(name) for name in ("a", "b", "own", "same", "c")]
    assert names == [None, "b", "b", "c", "c"]


async def test_a_full_queue_refuses_feedback(tmp_path: Path) -> None:
    """The reply is a 503, so that the client can try again."""
    path = tmp_path / "t.jsonl"
    recorder = Recorder(path, queue_size=1)  # not started, so nothing drains it
    request = request_for()
    _, result = await run_to_end(ScriptedUpstream(SEVEN), request)
    recorder.record(request, result, Provenance("a", "r"))
    app = create_app(Settings(record_to=path), ScriptedUpstream(SEVEN), recorder)
    transport = httpx.ASGITransport(app)  # which starts nothing
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        reply = await client.post(FEEDBACK, json={"id": "a", "rating": 1})
    assert reply.status_code == 503


async def test_replay_takes_feedback_for_the_right_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Feedback that gives an answer, or calls the winner right, is a label; other requests are left out."""
    path = tmp_path / "traffic.jsonl"
    scripts = (EIGHT, SEVEN, SEVEN) * 3
    async with gateway(ScriptedUpstream(*scripts), record_to=path) as client:
        for remarks in ({"answer": "8"}, {"correct": True}, {"rating": 1}):
            own = {"X-Request-Id": json.dumps(remarks)}
            ask = {"model": "tiny", "input": "What is 3 + 4?"}
            await client.post("/v1/responses", json=ask, headers={**VOTE, **own})
            await client.post(FEEDBACK, json={"id": own["X-Request-Id"], **remarks})
    assert main(["replay", str(path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    figures = {row["name"]: row["accuracy"] for row in report["settings"]}
    assert figures["majority"] == 50
    assert figures["oracle"] == 100
