"""Turn a request to OpenAI's Responses API into the same request to chat completions.

It follows the API reference of `POST /v1/responses`. docs/reference/endpoints.md lists the fields that the
gateway refuses or ignores.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.dialects.base import check_chat_fields, objects, one_of, positive, refuse, string, wrong
from gateway.dialects.transcript import Transcript, text_part
from gateway.errors import unknown_value

__all__ = ["chat_request"]

_STATELESS = "the gateway stores no conversations; send the whole conversation as input."
_REFUSED = {
    "previous_response_id": _STATELESS,
    "conversation": _STATELESS,
    "store": "the gateway stores nothing; allowed: false, or leave it out.",
    "background": "the client must wait for its reply; allowed: false, or leave it out.",
    "prompt": "the gateway stores no prompts; send instructions and input.",
    "moderation": "the gateway moderates nothing; leave it out.",
    "top_logprobs": "this endpoint returns no logprobs; /v1/chat/completions does.",
    "n": "this endpoint returns one response; /v1/chat/completions can return several choices.",
}
"""Fields for features that the gateway lacks. Null, false and 0 ask for nothing."""

_IGNORED = frozenset(
    {
        "access_programs",
        "background_options",
        "context_management",
        "image",
        "include",
        "max_tool_calls",
        "messages",
        "metadata",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "stream_options",
        "truncation",
        "user",
    }
)
"""Fields that change nothing here: hints, labels, and options of features that don't exist."""

_OWN = frozenset({"input", "instructions", "max_output_tokens", "reasoning", "text", "tool_choice", "tools"})
_LOGPROBS = "message.output_text.logprobs"


def chat_request(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the chat request, with an engine's extra fields as they are. Raises `BadRequest`."""
    for field, reason in _REFUSED.items():
        if body.get(field):
            raise refuse(field, reason)
    include = body.get("include")
    if isinstance(include, list) and _LOGPROBS in include:
        raise refuse("include", f"{_LOGPROBS}: {_REFUSED['top_logprobs']}")
    if not isinstance(body.get("stream") or False, bool):
        raise wrong("stream", "true or false")
    handled = _REFUSED.keys() | _IGNORED | _OWN
    chat = {key: value for key, value in body.items() if key not in handled and value is not None}
    string(chat.get("model", ""), "model")
    if body.get("metadata") is not None and not isinstance(body["metadata"], dict):
        raise wrong("metadata", "an object")
    chat["messages"] = _messages(body)
    check_chat_fields(chat)  # clients may send some that only chat completions has
    if (limit := body.get("max_output_tokens")) is not None:
        chat["max_tokens"] = positive(limit, "max_output_tokens")
    if reasoning := _reasoning(body.get("reasoning")):
        chat["reasoning"] = reasoning
    if chat.get("stream"):
        chat["stream_options"] = {"include_usage": True}
    return {**chat, **_tools(body), **_text(body.get("text"))}


def _reasoning(value: object) -> dict[str, Any]:
    """Translate `reasoning`, without the fields that only say how to show or remember the thinking."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong("reasoning", "an object")
    if value.get("mode") not in (None, "standard"):
        raise unknown_value(value["mode"], ["standard"], param="reasoning.mode")
    for field in ("summary", "generate_summary"):
        if value.get(field) is not None:
            one_of(value[field], ("auto", "concise", "detailed"), f"reasoning.{field}")
    display = {"context", "generate_summary", "mode", "summary"}
    return {key: part for key, part in value.items() if key not in display}


def _text(value: object) -> dict[str, Any]:
    """Translate `text: {format, verbosity}`."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong("text", "an object")
    fields: dict[str, Any] = {}
    if value.get("verbosity") is not None:
        fields["verbosity"] = value["verbosity"]
    text_format = value.get("format")
    if text_format is None:
        return fields
    if not isinstance(text_format, dict):
        raise wrong("text.format", "an object")
    kind = one_of(text_format.get("type"), ("text", "json_object", "json_schema"), "text.format.type")
    if kind == "json_schema":
        if not isinstance(text_format.get("schema"), dict):
            raise wrong("text.format.schema", "an object")
        schema = {key: part for key, part in text_format.items() if key != "type" and part is not None}
        fields["response_format"] = {"type": kind, "json_schema": schema}
    elif kind == "json_object":
        fields["response_format"] = {"type": kind}
    return fields


def _tools(body: Mapping[str, Any]) -> dict[str, Any]:
    """Translate `tools` and `tool_choice`; `allowed_tools` leaves only the tools that it names."""
    tools = [_tool(tool, index) for index, tool in enumerate(objects(body.get("tools") or [], "tools"))]
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        kind = one_of(choice.get("type"), ("function", "allowed_tools"), "tool_choice.type")
        if kind == "function":
            choice = {"type": kind, "function": {"name": string(choice.get("name"), "tool_choice.name")}}
        else:
            allowed = objects(choice.get("tools"), "tool_choice.tools")
            names = [tool.get("name") for tool in allowed]
            tools = [tool for tool in tools if tool["function"]["name"] in names]
            choice = one_of(choice.get("mode"), ("auto", "required"), "tool_choice.mode")
    elif choice is not None:
        one_of(choice, ("none", "auto", "required"), "tool_choice")
    if not tools:
        return {}
    return {"tools": tools} if choice is None else {"tools": tools, "tool_choice": choice}


def _tool(tool: Mapping[str, Any], index: int) -> dict[str, Any]:
    if tool.get("type") != "function":
        field = f"tools[{index}].type"
        raise unknown_value(tool.get("type"), ["function (built-in tools don't exist here)"], param=field)
    string(tool.get("name"), f"tools[{index}].name")
    function = {
        key: tool[key] for key in ("name", "description", "parameters", "strict") if tool.get(key) is not None
    }
    return {"type": "function", "function": function}


def _messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Translate `instructions` and `input`."""
    transcript = Transcript()
    if (instructions := body.get("instructions")) is not None:
        transcript.system(string(instructions, "instructions"))
    items = body.get("input")
    if isinstance(items, str):
        transcript.user([text_part(items)])
        return transcript.messages
    if not isinstance(items, list) or not items:
        raise wrong("input", "a string, or a list of at least one item")
    for index, item in enumerate(objects(items, "input")):
        _item(transcript, item, f"input[{index}]")
    if all(message["role"] == "system" for message in transcript.messages):
        raise wrong("input", "a conversation with at least one message that is not the system's")
    return transcript.messages


def _item(transcript: Transcript, item: Mapping[str, Any], field: str) -> None:
    kind = item.get("type") or "message"
    if kind == "message":
        _message(transcript, item, field)
    elif kind == "reasoning":
        parts = item.get("content") or item.get("summary") or []
        texts = [str(part.get("text", "")) for part in objects(parts, f"{field}.content")]
        if any(texts):  # this model can't read an item of encrypted thinking
            transcript.thinking("\n\n".join(texts))
    elif kind == "function_call":
        call_id, name, arguments = (
            string(item.get(key), f"{field}.{key}") for key in ("call_id", "name", "arguments")
        )
        transcript.call(call_id, name, arguments)
    elif kind == "function_call_output":
        call_id = string(item.get("call_id"), f"{field}.call_id")
        transcript.result(call_id, _parts(item.get("output"), f"{field}.output"))
    else:
        allowed = ("message", "reasoning", "function_call", "function_call_output")
        raise unknown_value(kind, allowed, param=f"{field}.type")


def _message(transcript: Transcript, item: Mapping[str, Any], field: str) -> None:
    role = one_of(item.get("role"), ("user", "assistant", "system", "developer"), f"{field}.role")
    parts = _parts(item.get("content"), f"{field}.content")
    if role == "user":
        transcript.user(parts)
        return
    if any(part["type"] != "text" for part in parts):
        raise refuse(f"{field}.content", f"messages of the {role} may hold only text.")
    if role == "assistant":
        transcript.answer("".join(part["text"] for part in parts))
    else:
        transcript.system("\n".join(part["text"] for part in parts))


def _parts(content: object, field: str) -> list[dict[str, Any]]:
    """Return a string or a list of content parts as chat content parts."""
    if isinstance(content, str):
        return [text_part(content)]
    if not isinstance(content, list):
        raise wrong(field, "a string or a list of parts")
    return [_part(part, f"{field}[{index}]") for index, part in enumerate(objects(content, field))]


def _part(part: Mapping[str, Any], field: str) -> dict[str, Any]:
    kind = one_of(
        part.get("type"), ("input_text", "output_text", "text", "refusal", "input_image"), f"{field}.type"
    )
    if kind != "input_image":
        key = "refusal" if kind == "refusal" else "text"
        return text_part(string(part.get(key), f"{field}.{key}"))
    if part.get("file_id"):
        raise refuse(f"{field}.file_id", "the gateway stores no files; send image_url.")
    image = {"url": string(part.get("image_url"), f"{field}.image_url")}
    if part.get("detail") is not None:
        image["detail"] = string(part["detail"], f"{field}.detail")
    return {"type": "image_url", "image_url": image}
