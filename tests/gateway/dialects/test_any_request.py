"""Whatever a client sends, the dialect reads it or refuses it, and never fails."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dialects import messages_input, responses_input
from gateway.dialects.chat import parse_body
from gateway.errors import BadRequest

WORDS = re.findall(
    r"\w+",
    """
    user assistant system developer tool text input_text output_text refusal input_image image
    image_url url  base64 message reasoning thinking redacted_thinking function function_call
    function_call_output tool_use  tool_result custom json_schema json_object allowed_tools auto any
    none required enabled disabled adaptive  omitted detailed low high standard
    """,
)
KEYS = re.findall(
    r"\w+",
    """
    type role content text input instructions output call_id arguments name id tools tool_choice
    format schema  mode reasoning effort summary include store stream n metadata max_tokens
    max_output_tokens messages system  thinking budget_tokens display output_config stop_sequences
    source media_type data url image_url detail  file_id tool_use_id input_schema signature function
    parameters model context
    """,
)
SCALARS = st.none() | st.booleans() | st.integers(-1, 3) | st.sampled_from(WORDS) | st.text(max_size=3)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)
PARTS = st.lists(
    st.fixed_dictionaries({"type": st.sampled_from(WORDS)}, optional=dict.fromkeys(KEYS[2:], VALUES))
)
TURNS = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(WORDS[:4])},
        optional={"content": PARTS | VALUES, "type": st.sampled_from(WORDS), "summary": PARTS},
    ),
    max_size=4,
)
BODIES = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6).flatmap(
    lambda body: st.fixed_dictionaries(
        {
            **{key: st.just(value) for key, value in body.items()},
            "input": TURNS | VALUES,
            "messages": TURNS | VALUES,
        }
    )
)


def chat(body: Mapping[str, Any]) -> dict[str, Any]:
    """Read a chat request."""
    return parse_body(orjson.dumps(body))


@pytest.mark.parametrize("read", [responses_input.chat_request, messages_input.chat_request, chat])
@settings(deadline=None)
@given(body=BODIES)
def test_a_request_is_read_or_refused_by_name(
    read: Callable[[Mapping[str, Any]], dict[str, Any]], body: dict[str, Any]
) -> None:
    """A request that is read is valid chat; a refusal is a 400 that names a field."""
    refusal = request = None
    try:
        request = read(body)
    except BadRequest as error:
        refusal = error
    if refusal is None:
        assert parse_body(orjson.dumps(request)) == request
    else:
        assert refusal.param
