"""Turn a request to Anthropic's Messages API into the same request to chat completions.

It follows the API reference of `POST /v1/messages`. docs/reference/endpoints.md lists the fields that the
gateway refuses or ignores.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.dialects.base import check_chat_fields, objects, one_of, positive, refuse, string, wrong
from gateway.dialects.transcript import Transcript, text_part
from gateway.errors import unknown_value

__all__ = ["chat_request", "has_images"]

_REFUSED = {
    "container": "the gateway runs no code; leave it out.",
    "mcp_servers": "the gateway calls no tools; give the tools themselves as tools.",
    "inference_geo": "a request can't choose where the engine runs; leave it out.",
    "n": "this endpoint returns one message; /v1/chat/completions can return several choices.",
}
_IGNORED = frozenset(
    {
        "cache_control",
        "context_management",
        "diagnostics",
        "metadata",
        "service_tier",
        "speed",
        "stream_options",
        "user_profile_id",
        "workspace_id",
    }
)
"""Fields that change nothing here: hints, labels, and options of features that don't exist."""

_OWN = frozenset(
    {"messages", "output_config", "stop_sequences", "system", "thinking", "tool_choice", "tools"}
)
_EFFORTS = ("low", "medium", "high", "xhigh", "max")


def chat_request(body: Mapping[str, Any], *, max_tokens_needed: bool = True) -> dict[str, Any]:
    """Return the chat request, with an engine's extra fields as they are. Raises `BadRequest`."""
    for field, reason in _REFUSED.items():
        if body.get(field):
            raise refuse(field, reason)
    handled = _REFUSED.keys() | _IGNORED | _OWN
    chat = {key: value for key, value in body.items() if key not in handled and value is not None}
    string(chat.get("model", ""), "model")
    if not isinstance(chat.get("stream", False), bool):
        raise wrong("stream", "true or false")
    if max_tokens_needed or "max_tokens" in chat:
        chat["max_tokens"] = positive(chat.get("max_tokens"), "max_tokens")
    check_chat_fields(chat)  # clients may send some that only chat completions has
    if (stops := body.get("stop_sequences")) is not None:
        if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
            raise wrong("stop_sequences", "a list of strings")
        chat["stop"] = stops
    if chat.get("stream"):
        chat["stream_options"] = {"include_usage": True}
    chat["messages"] = _messages(body)
    return {**chat, **_tools(body), **_output(body.get("output_config")), **_thinking(body.get("thinking"))}


def has_images(chat: Mapping[str, Any]) -> bool:
    """Return whether a chat request holds an image."""
    parts = [message["content"] for message in chat["messages"] if isinstance(message["content"], list)]
    return any(part["type"] == "image_url" for content in parts for part in content)


def _thinking(value: object) -> dict[str, Any]:
    """Translate `thinking: {type, budget_tokens, display}`; "adaptive" equals no field at all."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong("thinking", "an object")
    kind = one_of(value.get("type"), ("enabled", "disabled", "adaptive"), "thinking.type")
    fields: dict[str, Any] = {}
    if value.get("display") is not None:
        display = one_of(value["display"], ("summarized", "omitted"), "thinking.display")
        fields["include_reasoning"] = display != "omitted"
    if kind != "adaptive":
        fields["thinking"] = {key: part for key, part in value.items() if key != "display"}
    return fields


def _output(value: object) -> dict[str, Any]:
    """Translate `output_config: {effort, format}`."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong("output_config", "an object")
    fields: dict[str, Any] = {}
    if value.get("effort") is not None:
        fields["reasoning_effort"] = one_of(value["effort"], _EFFORTS, "output_config.effort")
    output_format = value.get("format")
    if output_format is not None:
        if not isinstance(output_format, dict) or output_format.get("type") != "json_schema":
            raise wrong("output_config.format", "an object of type json_schema")
        if not isinstance(output_format.get("schema"), dict):
            raise wrong("output_config.format.schema", "an object")
        schema = {"name": "output", "schema": output_format["schema"], "strict": True}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    return fields


def _tools(body: Mapping[str, Any]) -> dict[str, Any]:
    tools = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(objects(body.get("tools") or [], "tools"))]
    if not tools:
        return {}
    fields: dict[str, Any] = {"tools": tools}
    choice = body.get("tool_choice")
    if choice is None:
        return fields
    if not isinstance(choice, dict):
        raise wrong("tool_choice", "an object")
    kind = one_of(choice.get("type"), ("auto", "any", "tool", "none"), "tool_choice.type")
    if kind == "tool":
        name = string(choice.get("name"), "tool_choice.name")
        fields["tool_choice"] = {"type": "function", "function": {"name": name}}
    else:
        fields["tool_choice"] = "required" if kind == "any" else kind
    if choice.get("disable_parallel_tool_use"):
        fields["parallel_tool_calls"] = False
    return fields


def _tool(tool: Mapping[str, Any], field: str) -> dict[str, Any]:
    if tool.get("type") not in (None, "custom"):
        raise unknown_value(
            tool["type"], ["custom (Anthropic's own tools don't exist here)"], param=f"{field}.type"
        )
    if not isinstance(tool.get("input_schema"), dict):
        raise wrong(f"{field}.input_schema", "an object")
    function = {"name": string(tool.get("name"), f"{field}.name"), "parameters": tool["input_schema"]}
    function |= {key: tool[key] for key in ("description", "strict") if tool.get(key) is not None}
    return {"type": "function", "function": function}


def _messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Translate `system` and `messages`."""
    transcript = Transcript()
    if body.get("system"):
        transcript.system(_plain(body["system"], "system"))
    messages = objects(body.get("messages"), "messages")
    if not messages:
        raise wrong("messages", "a list of at least one message")
    for index, message in enumerate(messages):
        field = f"messages[{index}].content"
        role = one_of(message.get("role"), ("user", "assistant", "system"), f"messages[{index}].role")
        if role == "user":
            _user(transcript, message.get("content"), field)
        elif role == "assistant":
            _assistant(transcript, message.get("content"), field)
        else:
            transcript.system(_plain(message.get("content"), field))
    if all(message["role"] == "system" for message in transcript.messages):
        raise wrong("messages", "a conversation with at least one message that is not the system's")
    if messages[-1]["role"] == "assistant":
        raise refuse("messages", "the last one must be the user's; a client can't begin the reply.")
    return transcript.messages


def _blocks(content: object, field: str) -> list[Mapping[str, Any]]:
    """Return content as a list of blocks; it may be a string."""
    if isinstance(content, str):
        return [text_part(content)]
    if not isinstance(content, list):
        raise wrong(field, "a string or a list of content blocks")
    return objects(content, field)


def _user(transcript: Transcript, content: object, field: str) -> None:
    """Add the results of tools first, because chat completions wants them right after their calls."""
    parts = []
    for index, block in enumerate(_blocks(content, field)):
        at = f"{field}[{index}]"
        if one_of(block.get("type"), ("text", "image", "tool_result"), f"{at}.type") != "tool_result":
            parts.append(_part(block, at))
            continue
        result = block.get("content")
        results = _blocks("" if result is None else result, f"{at}.content")
        call_id = string(block.get("tool_use_id"), f"{at}.tool_use_id")
        transcript.result(call_id, [_part(part, f"{at}.content[{i}]") for i, part in enumerate(results)])
    transcript.user(parts)


def _assistant(transcript: Transcript, content: object, field: str) -> None:
    texts = []
    for index, block in enumerate(_blocks(content, field)):
        at = f"{field}[{index}]"
        allowed = ("text", "thinking", "redacted_thinking", "tool_use")
        kind = one_of(block.get("type"), allowed, f"{at}.type")
        if kind == "text":
            texts.append(string(block.get("text"), f"{at}.text"))
        elif kind == "thinking":
            transcript.thinking(string(block.get("thinking"), f"{at}.thinking"))
        elif kind == "tool_use":
            call_id, name = (string(block.get(key), f"{at}.{key}") for key in ("id", "name"))
            if not isinstance(block.get("input"), dict):
                raise wrong(f"{at}.input", "an object")
            transcript.call(call_id, name, orjson.dumps(block["input"]).decode())
    transcript.answer("".join(texts))


def _part(block: Mapping[str, Any], field: str) -> dict[str, Any]:
    """Return a text or image block as a chat content part."""
    if one_of(block.get("type"), ("text", "image"), f"{field}.type") == "text":
        return text_part(string(block.get("text"), f"{field}.text"))
    source = block.get("source")
    if not isinstance(source, dict):
        raise wrong(f"{field}.source", "an object")
    if one_of(source.get("type"), ("base64", "url"), f"{field}.source.type") == "url":
        url = string(source.get("url"), f"{field}.source.url")
    else:
        media, data = (string(source.get(key), f"{field}.source.{key}") for key in ("media_type", "data"))
        url = f"data:{media};base64,{data}"
    return {"type": "image_url", "image_url": {"url": url}}


def _plain(content: object, field: str) -> str:
    """Return system text, which may be a string or text blocks."""
    texts = []
    for index, block in enumerate(_blocks(content, field)):
        one_of(block.get("type"), ("text",), f"{field}[{index}].type")
        texts.append(string(block.get("text"), f"{field}[{index}].text"))
    return "\n\n".join(texts)
