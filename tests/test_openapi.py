"""The OpenAPI document is true: the gateway answers every request as the document says."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.app import create_app
from gateway.config import Settings
from gateway.http.auth import key_digest
from gateway.upstreams.base import Endpoint
from tests.fakes import MODEL, ScriptedUpstream, thinks


class Upstream(ScriptedUpstream):
    """A scripted engine that also counts prompts and relays."""

    async def count(self, body: Mapping[str, Any]) -> int | None:
        """Return the same count for every prompt."""
        return 10

    async def relay(
        self, endpoint: Endpoint, payload: bytes, on_headers: Any = None
    ) -> AsyncGenerator[bytes, None]:
        """Relay one reply in one piece."""
        yield b'{"object": "text_completion"}'


SIMPLE: Mapping[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "1 + 1?"}],
    "input": "1 + 1?",
    "system": None,
    "tools": None,
}
APP = create_app(Settings(record_to=Path(os.devnull)), Upstream(thinks(3)))
DOCUMENT = schemathesis.openapi.from_dict(APP.openapi())
DOCUMENT.app = APP
OPERATIONS = {
    operation.label: operation for operation in (result.ok() for result in DOCUMENT.get_all_operations())
}
POSTS = [label for label in OPERATIONS if label.startswith("POST")]
GENERATING = [label for label in POSTS if label != "POST /v1/feedback"]  # feedback needs an existing id
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
bounded = settings(
    max_examples=20,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


def check_refusal(path: str, status: int, payload: bytes) -> None:
    """Check that an error has the shape of the path's clients and names what is wrong."""
    assert 400 <= status < 500
    body = orjson.loads(payload)
    assert (body.get("type") == "error") == path.startswith("/v1/messages")
    error = body["error"]
    assert error["type"]
    assert error.get("param") or re.search("body|JSON", error["message"]), error
    if (param := error.get("param")) is not None:
        assert param.partition(".")[0].partition("[")[0] in error["message"]


@pytest.mark.parametrize("label", GENERATING)
def test_an_allowed_request_gets_a_documented_reply(label: str) -> None:
    """Status, headers and body follow the document, and errors name what is wrong.

    The test sets model and conversation, because the document can't know which exist.
    """
    statuses = set()

    @bounded
    @given(case=OPERATIONS[label].as_strategy(GenerationMode.POSITIVE))
    def holds(case: Case) -> None:
        if isinstance(case.body, dict):
            case.body |= {key: value for key, value in SIMPLE.items() if key in ("model", *case.body)}
        response = case.call()
        case.validate_response(response, checks=CHECKS)
        statuses.add(response.status_code)
        if response.status_code != 200:
            check_refusal(case.path, response.status_code, response.content)

    holds()
    assert 200 in statuses, f"no request succeeded: {statuses}"


@pytest.mark.parametrize("label", POSTS)
def test_a_forbidden_request_does_no_harm(label: str) -> None:
    """The gateway answers a request that the document forbids, or says why it refuses."""

    @bounded
    @given(case=OPERATIONS[label].as_strategy(GenerationMode.NEGATIVE))
    def holds(case: Case) -> None:
        response = case.call()
        case.validate_response(response, checks=CHECKS)
        if response.status_code != 200:
            check_refusal(case.path, response.status_code, response.content)

    holds()


SECRET = "tg-known"
CREDENTIALS = ("x-api-key", "authorization")
KEYED = create_app(
    Settings.model_validate({"keys": {"a": {"secret_sha256": key_digest(SECRET)}}}), Upstream(thinks(3))
)
KEYED_DOCUMENT = schemathesis.openapi.from_dict(KEYED.openapi())
KEYED_DOCUMENT.app = KEYED
KEYED_OPERATIONS = {
    operation.label: operation
    for operation in (result.ok() for result in KEYED_DOCUMENT.get_all_operations())
    if operation.path.startswith("/v1/")
}


@pytest.mark.parametrize("label", list(KEYED_OPERATIONS))
def test_a_gateway_with_keys_documents_them(label: str) -> None:
    """A request with a key in either header is answered; without one it is a documented 401."""
    operation = KEYED_OPERATIONS[label]
    schemes = KEYED.openapi()["components"]["securitySchemes"]
    assert {name for way in operation.definition.raw["security"] for name in way} == set(schemes)

    @settings(bounded, max_examples=5)
    @given(case=operation.as_strategy(GenerationMode.POSITIVE))
    def holds(case: Case) -> None:
        others = {
            name: value for name, value in (case.headers or {}).items() if name.lower() not in CREDENTIALS
        }
        for key in ({}, {"X-API-Key": SECRET}, {"Authorization": f"Bearer {SECRET}"}):
            case.headers = {**others, **key}
            response = case.call()
            assert (response.status_code == 401) is (not key)
            if response.status_code == 401 or label in GENERATING:
                case.validate_response(response, checks=CHECKS)

    holds()


HEADERS = st.sampled_from(
    re.findall(
        r"\S+",
        """
        x-reasoning-budget x-samples x-vote x-scorer x-stop x-request-id content-type content-encoding
        accept accept-encoding authorization x-api-key anthropic-version expect cookie origin host
        """,
    )
)
VALUES = st.binary(max_size=12) | st.sampled_from(
    re.findall(rb"\S+", "high 0 8 -1 1e3 auto first-2 first-0 majority none ½ ٣ 999999999999".encode())
)
VALID = orjson.dumps({**SIMPLE, "max_tokens": 9})
PAYLOADS = st.one_of(
    st.just(VALID),
    st.binary(max_size=40),
    st.integers(0, len(VALID)).map(lambda end: VALID[:end]),
    st.sampled_from(
        [b"[" * 5000, b'{"a":' * 5000, b'{"messages": 1e999}', b'"\xed\xa0\x80"', b"\xff\xfe{\x00}\x00"]
    ),
)


@pytest.mark.parametrize("path", [label.removeprefix("POST ") for label in POSTS])
@bounded
@given(headers=st.lists(st.tuples(HEADERS.map(str.encode), VALUES), max_size=4), payload=PAYLOADS)
async def test_odd_headers_and_payloads_do_no_harm(
    path: str, headers: list[tuple[bytes, bytes]], payload: bytes
) -> None:
    """Any bytes in headers, repeated headers and broken payloads get an answer or a named error."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(APP), base_url="http://gateway") as client:
        response = await client.post(path, headers=headers, content=payload)
    assert response.headers.get_list("x-request-id")
    if response.status_code != 200:
        check_refusal(path, response.status_code, response.content)
