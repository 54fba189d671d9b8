"""What a chat template's text tells about a family: its switch, its tags, who opens the block.

Templates are Jinja. Only their last part, which begins the assistant's turn, is evaluated,
by a small reader of its own: conditions that it doesn't understand count as both true and
false, and whatever isn't the same either way is not concluded.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from policies.families import FAMILIES, Family, Limit, Switch

__all__ = ["Detected", "detect", "refine"]

_KWARGS = ("enable_thinking", "thinking")
_TOKEN = re.compile(r"({%.*?%}|{{.*?}}|{#.*?#})", re.DOTALL)
_STRING = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"", re.DOTALL)
_ASSIGNED = re.compile(r"{%-?\s*set\s+(\w+)\s*=\s*(true|false|'[^']*'|\"[^\"]*\")\s*-?%}", re.IGNORECASE)

Value = bool | str | None
"""A variable's value; a name that isn't there at all is undefined."""


@dataclass(frozen=True, slots=True)
class Detected:
    """What a template tells; None where it tells nothing.

    `kwarg` is the boolean that switches thinking; `budget` says that a `thinking_budget` is
    read; `tags` are the opening and closing one; `opens` and `default` are as in `Family`.
    """

    kwarg: str | None = None
    budget: bool = False
    tags: tuple[str, str] | None = None
    opens: Literal["model", "template"] | None = None
    default: Literal["on", "off"] | None = None
    history: Literal["drop", "loop"] | None = None


def detect(template: str, tags: tuple[str, str] | None = None) -> Detected:
    """Reads a template's text. `tags` are looked for first, then those of all families."""
    pairs = [tags] if tags else []
    pairs += [("<think>", "</think>"), *((row.open, row.close) for row in FAMILIES)]
    found = next((pair for pair in pairs if pair[0] in template or pair[1] in template), None)
    code = " ".join(_STRING.sub("''", token) for token in _TOKEN.findall(template) if token[1] in "{%")
    kwarg = next((name for name in _KWARGS if _is_kwarg(name, code)), None)
    budget = _is_kwarg("thinking_budget", code)
    if found is None:
        return Detected(kwarg, budget)
    ends = {state: _generation_prompts(template, kwarg, state) for state in (None, True, False)}
    opened = {prompt.rstrip().endswith(found[0]) for prompt in ends[True if kwarg else None]}
    opens: Literal["model", "template"] | None = None
    if len(opened) == 1:
        opens = "template" if opened.pop() else "model"
    default: Literal["on", "off"] | None = None
    if kwarg and ends[True] != ends[False] and ends[None] in (ends[True], ends[False]):
        default = "on" if ends[None] == ends[True] else "off"
    return Detected(kwarg, budget, found, opens, default, _history(template, found[1]))


def refine(family: Family, template: str) -> Family:
    """The family as this template has it: what the template tells beats the row, the rest stays."""
    seen = detect(template, (family.open, family.close))
    if seen.tags is None:
        return family
    new = replace(family, open=seen.tags[0], close=seen.tags[1], history=seen.history or family.history)
    if seen.opens and family.opens != "gateway":
        new = replace(new, opens=seen.opens)
    if seen.budget and family.limit is None:
        new = replace(new, limit=Limit((512, 1024, 2048, 4096, 8192, 16384), kwarg="thinking_budget"))
    if family.default == "never":
        return new
    keys = {key for switch in (family.on, family.off) if switch for key in switch.kwargs}
    if seen.kwarg and seen.kwarg not in keys:
        on, off = Switch(kwargs={seen.kwarg: True}), Switch(kwargs={seen.kwarg: False})
        new = replace(new, on=on, off=off, default=seen.default or "on")
    elif seen.kwarg and seen.default:
        new = replace(new, default=seen.default)
    elif keys and not any(key in template for key in keys):
        new = replace(new, on=None, off=None, default="always")
    return new


def _is_kwarg(name: str, code: str) -> bool:
    """Whether a template reads a variable from outside, and not just one that it has set itself."""
    used = re.search(rf"(?<![\w.(]){name}\b(?!\s*=[^=])|\(\s*(?:not\s+)?{name}\b(?!\s*=[^=])", code)
    guarded = re.search(
        rf"(?<![\w.]){name}\s+is\s+(?:not\s+)?(?:un)?defined|(?<![\w.]){name}\s*\|\s*default", code
    )
    assigned = re.search(rf"\bset\s+{name}\s*=", code)
    return bool(used and (guarded or not assigned))


def _history(template: str, close: str) -> Literal["drop", "loop"] | None:
    """Where earlier thinking is cut out: everywhere, or only before the turn that is going on."""
    if not re.search(rf"split\(\s*['\"]{re.escape(close)}", template):
        return None
    return "loop" if re.search(r"last_\w*(?:user|query)\w*|multi_step_tool", template) else "drop"


def _generation_prompts(template: str, kwarg: str | None, state: bool | None) -> set[str]:
    """What may stand at the end of a prompt, with `kwarg` set to `state` (None: not given)."""
    values: dict[str, Value] = {"add_generation_prompt": True}
    for name, value in _ASSIGNED.findall(template):
        values[name] = {"true": True, "false": False}.get(value.lower(), value[1:-1])
    if kwarg and state is not None:
        values[kwarg] = state
    start = template.rfind("add_generation_prompt")
    start = template.rfind("{%", 0, start)
    if start < 0:
        return set()
    tokens = [token for token in _TOKEN.split(template[start:]) if token and not token.startswith("{#")]
    return {prompt for prompt in _run(iter(tokens), values) if prompt.strip()}


def _run(tokens: Iterator[str], values: Mapping[str, Value]) -> set[str]:
    """All texts that the tokens may write, up to the tag that ends their block."""
    return _block(tokens, values)[0]


def _block(tokens: Iterator[str], values: Mapping[str, Value]) -> tuple[set[str], str]:
    """The possible texts of one block, and the tag that ended it (or "" at the end)."""
    texts = {""}
    for token in tokens:
        if not token.startswith("{%"):
            written = _written(token[2:-2].strip("-+ \n"), values) if token.startswith("{{") else {token}
            texts = {text + more for text in texts for more in written}
            continue
        tag = token[2:-2].strip("-+ \n")
        word = tag.partition(" ")[0]
        if word in ("elif", "else") or word.startswith("end"):
            return texts, tag
        if word == "if":
            texts = {text + more for text in texts for more in _branches(tag, tokens, values)}
        elif word in ("for", "macro", "generation", "filter", "call"):
            _block(tokens, values)
    return texts, ""


def _branches(tag: str, tokens: Iterator[str], values: Mapping[str, Value]) -> set[str]:
    """The texts that an if with its elifs and else may write."""
    texts: set[str] = set()
    open_ = True  # whether no earlier branch is certain to have been taken
    otherwise = True  # whether none of the branches may be taken
    while tag and not tag.startswith("endif"):
        word, _, condition = tag.partition(" ")
        truth = True if word == "else" else _truth(_parse(condition), values)
        written, tag = _block(tokens, values)
        if open_ and truth is not False:
            texts |= written
        if truth:
            open_ = otherwise = False
    return texts | {""} if otherwise else texts


def _parse(expression: str) -> ast.expr | None:
    """A Jinja expression as Python's, tests and filters written as calls; None where that fails."""
    text = re.sub(r"([\w.]+)\s+is\s+(?:not\s+defined|undefined)", r"(not defined('\1'))", expression)
    text = re.sub(r"([\w.]+)\s+is\s+defined", r"defined('\1')", text)
    text = re.sub(r"(\w+)\s*\|\s*default\((\w+)\)", r"default('\1', \2)", text)
    text = re.sub(r"\b(true|false|none)\b", lambda word: word[1].title(), text).replace("~", "+")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        return None


def _truth(node: ast.expr | None, values: Mapping[str, Value]) -> bool | None:
    """Whether a condition holds; None: can't be told."""
    match node:
        case ast.BoolOp(op=op, values=parts):
            truths = [_truth(part, values) for part in parts]
            decided = isinstance(op, ast.Or)
            if decided in truths:
                return decided
            return None if None in truths else not decided
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            truth = _truth(operand, values)
            return None if truth is None else not truth
        case ast.Compare(left=ast.Name(id=name), ops=[op], comparators=[ast.Constant(value=value)]):
            if name not in values and name not in _KWARGS:
                return None
            same = values.get(name) == value and isinstance(values.get(name), type(value))
            return same if isinstance(op, ast.Is | ast.Eq) else not same
        case ast.Call(func=ast.Name(id="defined"), args=[ast.Constant(value=name)]):
            return name in values if name in values or name in _KWARGS else None
        case ast.Call(
            func=ast.Name(id="default"), args=[ast.Constant(value=name), ast.Constant(value=value)]
        ):
            return bool(values.get(name, value)) if name in values or name in _KWARGS else None
        case ast.Name(id=name):
            return bool(values.get(name)) if name in values or name in _KWARGS else None
        case ast.Constant(value=value):
            return bool(value)
    return None


def _written(expression: str, values: Mapping[str, Value]) -> set[str]:
    """The texts that an output may write; parts that aren't known count as nothing."""
    return set(_texts(_parse(expression), values))


def _texts(node: ast.expr | None, values: Mapping[str, Value]) -> Sequence[str]:
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.Name(id=name) if isinstance(values.get(name), str):
            return [str(values[name])]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return [a + b for a in _texts(left, values) for b in _texts(right, values)]
        case ast.IfExp(test=test, body=body, orelse=orelse):
            truth = _truth(test, values)
            return [
                *(_texts(body, values) if truth is not False else ()),
                *(_texts(orelse, values) if not truth else ()),
            ]
    return [""]
