"""Finds the last answer that a reply declares. Looks at the tail only, with patterns of bounded reach."""

from __future__ import annotations

import re

from scorers.grader.latex import strip_formatting
from scorers.grader.parsing import json_key, parse_answer
from scorers.grader.values import Value

__all__ = ["find_answer"]

MAX_TEXT, MAX_TAIL, MAX_ANSWER, MAX_LINE = 1 << 17, 4_000, 4_000, 400

_NUMBER_LINE = re.compile(r"(?:A: ?|#### ?)(-?\$?\d[\d,]*(?:\.\d+)?)")
_NUMBER_BOX = re.compile(r"\\boxed\{(-?\d[\d,]*(?:\.\d+)?)\}[.\s$*]*(?:\\[\])][.\s$*]*)?$")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{|\\boxed\s+(?=\S)")
_TAG = re.compile(r"<?answer>\s*", re.IGNORECASE)
_END_TAG = re.compile(r"\s*<(?:/|\\/)answer", re.IGNORECASE)
_HASHES = re.compile(r"^\s{0,4}####\s*([^\n]{1,400})", re.MULTILINE)
_JOINED = re.compile(r"[\s$.]*(?:,|;|\band\b|\bor\b)[\s$]*(?:and\b|or\b)?[\s$]*(?:\\?[a-z]\w? ?=\s*)?\Z")
_PHRASE = re.compile(
    r"\b(?:answer|ans|option|choice|result|output|solution)s?\b"
    r"(?:\s(?:to|for|of|in|choice|option|letter|value|here|therefore|then|thus|the|this|your|question|problem)\b"
    r"[^.:=\n]{0,60}?)?"
    r"[*_`\s]{0,4}"
    r"(?:\bshould be\b|\bwould be\b|\bmust be\b|\bwill be\b|\bis\b|\bare\b|\bwas\b|:|=|\s[-–—](?=\s))"
    r"[*_`:\s]{0,8}"
    r"(?:\b(?:thus|therefore|then|given by|simply|just|indeed|option|choice|letter)\b[*:\s]{0,4})?",
    re.IGNORECASE,
)
_LABEL = re.compile(r"^[ \t*]{0,4}(?:A|Ans|Answer|Final answer)[ \t*]{0,3}[:.][ \t*]{0,4}", re.MULTILINE)
_HEADING = re.compile(
    r"^[#*_ \t]{0,8}(?:the )?(?:final )?(?:answer|result)[:*_ \t]{0,6}\n\s{0,8}", re.MULTILINE | re.IGNORECASE
)
_CHOICES = re.compile(r"^[ \t(*]{0,4}B[ \t*]{0,2}[.:)]", re.MULTILINE)
_CONCLUDES = re.compile(
    r"^\W{0,4}(?:so|thus|therefore|hence|consequently|finally|in total|in conclusion|altogether|overall|then|"
    r"this means|that means|we get|we have|we find|it follows)\b",
    re.IGNORECASE,
)
_STATES = re.compile(
    r"(?:\b(?:is|are)\b(?:\s+(?:at|on)\b)?"
    r"|\b(?:equals|equal to|get|have|costs?|returns|prints|outputs|it's)\b|=|:(?!\d))\s*",
    re.IGNORECASE,
)
_LEADING = re.compile(r"^(?:so|thus|hence|therefore|then|finally|and so),?\s+(?=\S)", re.IGNORECASE)
_NAMES_IT = re.compile(
    r"\bI(?:'d| would| will|'ll)? (?:choose|pick|select|go with) (?:option |choice )?(\(?[A-J]\)?|\([a-j]\))$"
    r"|\b(?:statement|claim|assertion|proposition|conjecture) (?:is|must be) \**(true|false)\**$"
    r"|\bat (\d{1,2}:\d\d(?: ?[ap]\.? ?m\.?)?|\d{1,2} ?[ap]\.? ?m\.?)$"
    r"|^(?:so |thus |therefore |hence )?,? ?(\S.{0,60}?) (?:is|are)"
    r" (?:the|our|my) (?:final |correct |right )?answers?$",
    re.IGNORECASE,
)
_GIVES = re.compile(r"\b(?:the|final|correct) answer(?: of)? (?=[-$\\(]{0,3}\d)", re.IGNORECASE)
_BOLD = re.compile(r"\*\*([^*\n]{1,80})\*\*")
_HEDGE = re.compile(
    r"^(?:not|correct|wrong|incorrect|right|unclear|unknown|that|to|based|obtained|found|given|in|as|of|because|"
    r"what|which|how|if|it|this|there|i|we|you|let|sorry|please|unfortunately|still|probably|likely|also|verified|"
    r"confirmed|consistent|reasonable|below|above|follows|\.\.\.|…|\?+)\b",
    re.IGNORECASE,
)
_TRAIL = re.compile(
    r",\s+(?:the|an?|which|so|as|because|since|who|where|not)\b|"
    r"\s+(?:because|since|which|where|as |so |for |when |if |in this|after|based|according"
    r"|and (?:the|this|that|it|so)\b|that is|i\.e\.|given|from|due to|hope|I hope"
    r"|\(because|\(since|-- |— )|\\\]|\\\)|\$\$|</|<\||\n",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(
    r"(?<![ap]\.m)(?<!\bvs)(?<!\bDr)(?<!\bSt)(?<!\bMr)(?<!\bMrs)[.!?](?=[*_\"')\]]{0,3}(?:\s|$))"
)
_MATH = re.compile(
    r"\$\$?([^$]{1,400})\$\$?|\\\(([^\n]{1,400}?)\\\)|\\\[(.{1,400}?)\\\]|\*\*([^*\n]{1,200})\*\*", re.DOTALL
)
_AMOUNT = re.compile(r"[$€£]?-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?%?")
_PROSE = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{4}")
_STEP = re.compile(r"\W{0,4}(?:step|case|part)\b|\W{0,3}\d+[.)]\s|[-*] ", re.IGNORECASE)
_PERSONAL = re.compile(
    r"\b(?:i|i'm|i'll|we|it|he|she|they|costs?|you|"
    r"let|let's|me|my|us|it's|can|can't|cannot|could|would|should|don't|do|does|did|sorry|"
    r"maybe|perhaps|sure|unsure|think|know|hello|hi|okay|ok|please|thanks|thank|here|there|this|that|what|why|how|"
    r"error|failed|unable|unknown|unclear|idea|help|hmm|wait|unfortunately|is|are|was|were|has|have|be|not|step)\b",
    re.IGNORECASE,
)


def find_answer(text: str) -> str | None:
    """The text of the last answer that `text` declares, else None.

    A box, an answer tag or a #### line counts before a phrase ("the answer is", "A:"),
    unless a phrase behind it declares a value; then comes what closes the reply: a lone
    value, or one that the last sentence states. A short bare reply is its own answer.
    """
    text = text[-MAX_TEXT:].strip()
    if text[:1] in ("{", "[") and json_key(text) is not None:
        return text
    quick = _find_plain(text)
    if quick:
        return quick
    text = _relevant_part(text).replace("\r", "").strip()
    if not text:
        return None
    mark, marked = _find_marked(text)
    said = _find_after_phrase(text, mark)
    if said is not None and (marked is None or _is_definite(said)):
        return said
    return marked if marked is not None else _find_closing(text)


def _find_plain(text: str) -> str | None:
    """The answer of a reply whose very last words declare it plainly; most replies are such."""
    if text.endswith("</answer>"):
        start = text.rfind("<answer>", -MAX_LINE)
        content = text[start + len("<answer>") : -len("</answer>")]
        return _stated_value(content.strip()) if start >= 0 and "boxed" not in content else None
    line = text.rfind("\n", -MAX_LINE)
    number = _NUMBER_LINE.fullmatch(text, line + 1) if line >= 0 else None
    if number:
        return number[1]
    box = _NUMBER_BOX.search(text, max(0, len(text) - MAX_LINE))
    return box[1] if box and text.find("boxed", max(0, box.start() - MAX_LINE), box.start()) < 0 else None


def _relevant_part(text: str) -> str:
    """The part to look at: the tail, or where the last box or tag stands if that is further up."""
    text = text[text.rfind("</think>") + len("</think>") :] if "</think>" in text else text
    tail = max(0, len(text) - MAX_TAIL)
    mark = max(text.rfind(r"\boxed{"), text.rfind("<answer>"))
    return text[mark : mark + MAX_TAIL] if 0 <= mark < tail else text[tail:]


def _find_marked(text: str) -> tuple[int, str | None]:
    """Where the last box, tag or #### line ends, and what it holds."""
    found = [_find_boxed(text), _find_tagged(text)]
    hashes = [match for match in _HASHES.finditer(text) if _holds_answer(match[1])]
    if hashes and (strip_formatting(hashes[-1][1]).casefold() not in ("answer", "final answer")):
        found.append((hashes[-1].end(), hashes[-1][1]))
    return max((each for each in found if each[1] is not None), default=(0, None), key=lambda each: each[0])


def _holds_answer(content: str) -> bool:
    """Whether a #### line holds an answer, not a heading of Markdown."""
    if _STEP.match(content) or content.rstrip().endswith(":"):
        return False
    return bool(re.search(r"\d", content)) or len(content.split()) <= 2


def _find_boxed(text: str) -> tuple[int, str | None]:
    """The last box that holds something; boxes joined by commas or "and" are one list."""
    spans: list[tuple[int, int, str]] = []
    for match in list(_BOX.finditer(text))[-8:]:
        content = (
            _inside_braces(text, match.end())
            if match[0].endswith("{")
            else text[match.end() :].split(maxsplit=1)[0].strip("$.")
        )
        if content.strip(" \n.\\") and (not spans or match.start() >= spans[-1][1]):
            spans.append((match.start(), match.end() + len(content) + 1, content))
    if not spans:
        return 0, None
    answer = [spans[-1][2]]
    for earlier, later in zip(spans[-2::-1], spans[:0:-1], strict=True):
        between = text[earlier[1] : later[0]]
        if len(between) > 20 or not _JOINED.match(between):
            break
        answer.insert(0, earlier[2])
    return spans[-1][1], _stated_value(", ".join(answer))


def _inside_braces(text: str, start: int) -> str:
    """What stands up to the brace that closes; nothing where none does."""
    depth, at = 1, start
    for brace in re.finditer(r"\\?[{}]", text[start : start + MAX_ANSWER]):
        if brace[0] in "{}":
            depth += 1 if brace[0] == "{" else -1
        if not depth:
            at = start + brace.start()
            break
    return text[start:at]


def _find_tagged(text: str) -> tuple[int, str | None]:
    for match in reversed(list(_TAG.finditer(text))[-8:]):
        if (
            text[max(0, match.start() - 1) : match.start()] == "/"
            or text[match.start() : match.start() + 2] == "</"
        ):
            continue
        end = _END_TAG.search(text, match.end())
        content = text[match.end() : end.start() if end else match.end() + MAX_ANSWER]
        if content.strip():
            inner = _find_boxed(content)[1]
            return match.end() + len(content), inner if inner is not None else _stated_value(content.strip())
    return 0, None


def _stated_value(content: str) -> str:
    """What a box or tag holds, or the value that its one sentence states: "The value is 42"."""
    if (
        " " not in content
        or "\n" in content
        or len(content) > MAX_LINE
        or parse_answer(content).kind != "text"
    ):
        return content
    sentence = strip_formatting(content)
    value = _find_after_phrase(sentence, 0) or _find_conclusion(sentence)
    return value if value is not None and _is_definite(value) else content


def _find_after_phrase(text: str, after: int) -> str | None:
    """What the last phrase behind `after` declares."""
    starts = [match.end() for match in _PHRASE.finditer(text, after)]
    starts += [match.end() for match in (*_HEADING.finditer(text, after), *_GIVES.finditer(text, after))]
    if not _CHOICES.search(text):
        starts += [match.end() for match in _LABEL.finditer(text, after)]
    for start in sorted(set(starts), reverse=True)[:6]:
        answer = _answer_at_start(text[start : start + 600])
        if answer:
            return answer
    return None


def _answer_at_start(rest: str) -> str | None:
    """The answer at the head of `rest`, without the sentence that goes on behind it."""
    rest = rest.lstrip(" \n\t:*_")
    fence = re.match(r"```[\w+-]*\n.{1,500}?\n```", rest, re.DOTALL)
    if fence:
        return fence[0]
    math = _MATH.match(rest)
    if math:
        content = next(part for part in math.groups() if part).strip()
        tail = rest[math.end() : math.end() + 200].split("\n")[0]
        more = re.match(r"\s*(?:,|and|or|,\s*and)\s*(?=\$|\\\()", tail)
        if not more:
            unit = re.match(r"\s*[A-Za-z%]{1,12}[.\s]*$", tail)
            return content + tail.rstrip(" .") if unit and math[4] is None else content
        rest = _SENTENCE_END.split(rest, maxsplit=1)[0].split("\n")[0]
        return " ".join(rest.split()) or None
    line = rest.split("\n")[0]
    line = _SENTENCE_END.split(line, maxsplit=1)[0].strip()
    for mark in '`"':
        line = line.replace(mark, "") if line.count(mark) == 1 else line  # its twin was cut off
    if not line or line.casefold().startswith("not "):
        return None
    if _HEDGE.match(line):
        return _last_amount(line)
    short = _TRAIL.split(line, maxsplit=1)[0].strip(" ,;:*")
    value = parse_answer(short)
    if value.kind not in ("text", "opaque") or len(short.split()) <= 6:
        return short or None
    return _last_amount(line) or (line if len(line.split()) <= 12 else None)


def _last_amount(sentence: str) -> str | None:
    """The one value of a sentence: its last formula or bold part, else its only number."""
    marked = [next(part for part in match.groups() if part) for match in _MATH.finditer(sentence)]
    if marked and parse_answer(marked[-1]).kind not in ("text", "opaque"):
        return marked[-1].strip()
    amounts = _AMOUNT.findall(sentence)
    return amounts[0] if len(amounts) == 1 else None


def _is_definite(answer: str) -> bool:
    value = parse_answer(answer)
    return value.kind not in ("text", "opaque") or value.key in (
        "yes",
        "no",
        "none",
        "undefined",
        "true",
        "false",
    )


def _find_closing(text: str) -> str | None:
    """The answer of a reply that names none as such: itself where short, else what its last line states."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if lines[-1] == "```":
        return _final_code_block(text)
    last = lines[-1]
    if last.rstrip(" *_\"')").endswith("?"):
        return None
    if len(last) <= MAX_LINE:
        alone = _LEADING.sub("", last)
        if _is_lone_value(parse_answer(alone), alone):
            return alone
        if len(lines) == 1 and _is_short_answer(parse_answer(last), last):
            stated = _find_conclusion(last.rstrip(" ."))
            return stated if stated is not None and _is_definite(stated) else last
    sentences = [part for part in _SENTENCE_END.split(last[-MAX_LINE:]) if part.strip(" *_)")]
    return _find_conclusion(sentences[-1].strip()) if sentences else None


def _final_code_block(text: str) -> str | None:
    """The code block that ends the reply, where it is all of the reply or JSON."""
    start = text.rfind("\n```", 0, -3) + 1
    block = text[start:]
    inside = block[block.find("\n") + 1 : -3].strip()
    return inside or None if start == 0 or json_key(inside) is not None else None


def _is_lone_value(value: Value, line: str) -> bool:
    """Whether a line is nothing but a value."""
    if value.kind in ("text", "opaque"):
        return value.kind == "text" and value.key in ("yes", "no", "none") and len(line.split()) <= 3
    return not _STEP.match(line)


def _is_short_answer(value: Value, line: str) -> bool:
    """Whether a one-line reply is an answer in a few words and not talk."""
    if value.kind == "opaque":
        return len(line) <= 200 and not _PROSE.search(line)
    words = line.split()
    if value.key in ("yes", "no"):
        return len(words) <= 25
    return (
        len(words) <= 5
        and len(line) <= 60
        and not _PERSONAL.search(line)
        and not line.endswith(("?", ":", "..."))
    )


def _find_conclusion(sentence: str) -> str | None:
    """What the last sentence states: "... = 19", "the total is 19 legs", "So she makes $18 a day"."""
    tail = [match.end() for match in _STATES.finditer(sentence)]
    if tail and not _STEP.match(sentence):
        content = sentence[tail[-1] :].strip()
        math = _MATH.fullmatch(content)
        content = next(part for part in math.groups() if part) if math else content.strip("`")
        if (
            content
            and len(content) <= 80
            and parse_answer(content.strip(" *")).kind not in ("text", "opaque")
        ):
            return content.strip(" *")
    named = _NAMES_IT.search(sentence)
    if named and _is_definite(content := next(filter(None, named.groups()))):
        return content
    bold: list[str] = [
        content for content in _BOLD.findall(sentence) if parse_answer(content).kind not in ("text", "opaque")
    ]
    if len(bold) == 1 and not _STEP.match(sentence):
        return bold[0]
    return _last_amount(sentence) if _CONCLUDES.match(sentence) else None
