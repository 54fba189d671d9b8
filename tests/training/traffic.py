"""Traffic of a real gateway, recorded by it, with its clients' feedback."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from gateway.app import create_app
from gateway.config import Settings
from tests.fakes import ScriptedUpstream, says
from tests.serving import serving_in_thread

__all__ = ["record"]


def record(path: Path, asked: Sequence[tuple[str, Sequence[str], Mapping[str, Any] | None]]) -> None:
    """Asks each question, answered by these samples, and says that of the answer, if anything."""
    upstream = ScriptedUpstream(*(says(text) for _, texts, _ in asked for text in texts))
    with (
        serving_in_thread(create_app(Settings(record_to=path), upstream)) as url,
        httpx.Client(base_url=url) as client,
    ):
        for question, texts, words in asked:
            body = {"model": "tiny", "messages": [{"role": "user", "content": question}]}
            voting = {"X-Samples": str(len(texts)), "X-Stop": "none", "X-Vote": "majority"}
            reply = client.post("/v1/chat/completions", json=body, headers=voting).raise_for_status().json()
            if words is not None:
                client.post("/v1/feedback", json={"id": reply["id"], **words}).raise_for_status()
    assert len(path.read_text(encoding="utf-8").splitlines()) == sum(
        1 if words is None else 2 for _, _, words in asked
    ), json.dumps(asked)
