"""A request to OpenAI's Responses API -> the same request to chat completions.

Follows the API reference of `POST /v1/responses`; what is refused or left out is listed in
docs/reference/endpoints.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.dialects.base import known, objects, positive, refuse, string, wrong
from gateway.dialects.transcript import Transcript, text_part
from gateway.errors import one_of

__all__ = ["chat_request"]

_STATELESS = "the gateway keeps no conversations; send the whole conversation as input."
_REFUSED = {
    "previous_response_id": _STATELESS,
    "conversation": _STATELESS,
    "store": "the gateway stores nothing; allowed: false, or leave it out.",
    "background": "replies are only given while the client waits; allowed: false, or leave it out.",
    "prompt": "there are no stored prompts here; send instructions and input.",
    "moderation": "the gateway moderates nothing; leave it out.",
    "top_logprobs": "this endpoint gives no logprobs; ask /v1/chat/completions for them.",
    "n": "a response is one; several choices are had from /v1/chat/completions.",
}
"""Fields that ask for what the gateway doesn't do. Null, false and 0 ask for nothing."""

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
"""Fields without which the reply is as good: hints, labels, and options of what isn't there."""

_OWN = frozenset({"input", "instructions", "max_output_tokens", "reasoning", "text", "tool_choice", "tools"})
_LOGPROBS = "message.output_text.logprobs"


def chat_request(body: Mapping[str, Any]) -> dict[str, Any]:
    """The chat request. Fields that are neither's own (an engine's extras) go along. Raises `BadRequest`."""
    for field, why in _REFUSED.items():
        if body.get(field):
            raise refuse(field, why)
    include = body.get("include")
    if isinstance(include, list) and _LOGPROBS in include:
        raise refuse("include", f"{_LOGPROBS}: {_REFUSED['top_logprobs']}")
    if not isinstance(body.get("stream") or False, bool):
        raise wrong("stream", "true or false")
    dropped = _REFUSED.keys() | _IGNORED | _OWN
    chat = {key: value for key, value in body.items() if key not in dropped and value is not None}
    string(chat.get("model", ""), "model")
    if body.get("metadata") is not None and not isinstance(body["metadata"], dict):
        raise wrong("metadata", "an object")
    chat["messages"] = _messages(body)
    for field in ("n", "max_tokens", "max_completion_tokens"):  # chat's own, which engines take as extras
        if chat.get(field) is not None:
            positive(chat[field], field)
    if not isinstance(chat.get("chat_template_kwargs", {}), dict):
        raise wrong("chat_template_kwargs", "an object")
    if (limit := body.get("max_output_tokens")) is not None:
        chat["max_tokens"] = positive(limit, "max_output_tokens")
    if (reasoning := body.get("reasoning")) is not None:
        chat["reasoning"] = _reasoning(reasoning)
    return {**chat, **_tools(body), **_text(body.get("text"))}


def _reasoning(value: object) -> dict[str, Any]:
    """Without what concerns only how the thinking is shown or remembered."""
    if not isinstance(value, dict):
        raise wrong("reasoning", "an object")
    if value.get("mode") not in (None, "standard"):
        raise one_of(value["mode"], ["standard"], param="reasoning.mode")
    for field in ("summary", "generate_summary"):
        if value.get(field) is not None:
            known(value[field], ("auto", "concise", "detailed"), f"reasoning.{field}")
    shown = {"context", "generate_summary", "mode", "summary"}
    return {key: part for key, part in value.items() if key not in shown}


def _text(value: object) -> dict[str, Any]:
    """`text: {format, verbosity}`."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong("text", "an object")
    found: dict[str, Any] = {}
    if value.get("verbosity") is not None:
        found["verbosity"] = value["verbosity"]
    form = value.get("format")
    if form is None:
        return found
    if not isinstance(form, dict):
        raise wrong("text.format", "an object")
    kind = known(form.get("type"), ("text", "json_object", "json_schema"), "text.format.type")
    if kind == "json_schema":
        if not isinstance(form.get("schema"), dict):
            raise wrong("text.format.schema", "an object")
        schema = {key: part for key, part in form.items() if key != "type" and part is not None}
        found["response_format"] = {"type": kind, "json_schema": schema}
    elif kind == "json_object":
        found["response_format"] = {"type": kind}
    return found


def _tools(body: Mapping[str, Any]) -> dict[str, Any]:
    """`tools` and `tool_choice`; of `allowed_tools` only those that it names are left."""
    tools = [_tool(tool, place) for place, tool in enumerate(objects(body.get("tools") or [], "tools"))]
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        kind = known(choice.get("type"), ("function", "allowed_tools"), "tool_choice.type")
        if kind == "function":
            choice = {"type": kind, "function": {"name": string(choice.get("name"), "tool_choice.name")}}
        else:
            allowed = objects(choice.get("tools"), "tool_choice.tools")
            names = [tool.get("name") for tool in allowed]
            tools = [tool for tool in tools if tool["function"]["name"] in names]
            choice = known(choice.get("mode"), ("auto", "required"), "tool_choice.mode")
    elif choice is not None:
        known(choice, ("none", "auto", "required"), "tool_choice")
    if not tools:
        return {}
    return {"tools": tools} if choice is None else {"tools": tools, "tool_choice": choice}


def _tool(tool: Mapping[str, Any], place: int) -> dict[str, Any]:
    if tool.get("type") != "function":
        field = f"tools[{place}].type"
        raise one_of(tool.get("type"), ["function (built-in tools don't exist here)"], param=field)
    string(tool.get("name"), f"tools[{place}].name")
    function = {
        key: tool[key] for key in ("name", "description", "parameters", "strict") if tool.get(key) is not None
    }
    return {"type": "function", "function": function}


def _messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`instructions` and `input`."""
    transcript = Transcript()
    if (instructions := body.get("instructions")) is not None:
        transcript.system(string(instructions, "instructions"))
    given = body.get("input")
    if isinstance(given, str):
        transcript.user([text_part(given)])
        return transcript.messages
    if not isinstance(given, list) or not given:
        raise wrong("input", "a string, or a list of at least one item")
    for place, item in enumerate(objects(given, "input")):
        _item(transcript, item, f"input[{place}]")
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
        if any(texts):  # an item of encrypted thinking alone says nothing to this model
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
        raise one_of(kind, allowed, param=f"{field}.type")


def _message(transcript: Transcript, item: Mapping[str, Any], field: str) -> None:
    role = known(item.get("role"), ("user", "assistant", "system", "developer"), f"{field}.role")
    parts = _parts(item.get("content"), f"{field}.content")
    if role == "user":
        transcript.user(parts)
        return
    if any(part["type"] != "text" for part in parts):
        raise refuse(f"{field}.content", f"only text is allowed in the {role}'s messages.")
    if role == "assistant":
        transcript.said("".join(part["text"] for part in parts))
    else:
        transcript.system("\n".join(part["text"] for part in parts))


def _parts(content: object, field: str) -> list[dict[str, Any]]:
    """A string or a list of content parts -> chat content parts."""
    if isinstance(content, str):
        return [text_part(content)]
    if not isinstance(content, list):
        raise wrong(field, "a string or a list of parts")
    return [_part(part, f"{field}[{place}]") for place, part in enumerate(objects(content, field))]


def _part(part: Mapping[str, Any], field: str) -> dict[str, Any]:
    kind = known(
        part.get("type"), ("input_text", "output_text", "text", "refusal", "input_image"), f"{field}.type"
    )
    if kind != "input_image":
        key = "refusal" if kind == "refusal" else "text"
        return text_part(string(part.get(key), f"{field}.{key}"))
    if part.get("file_id"):
        raise refuse(f"{field}.file_id", "there are no uploaded files here; give image_url.")
    image = {"url": string(part.get("image_url"), f"{field}.image_url")}
    if part.get("detail") is not None:
        image["detail"] = string(part["detail"], f"{field}.detail")
    return {"type": "image_url", "image_url": image}
