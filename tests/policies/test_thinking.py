"""Thinking and answer are split apart, however the text arrives."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.families import find_family
from policies.thinking import Markup, ThinkingText, ThinkSplitter, split_thinking

OPENED = Markup(opened=True)
BRACKETS = Markup(open="[THINK]", close="[/THINK]")
ODD = Markup(open="◁think▷", close="◁/think▷")

CASES = [
    ("plain answer", None, "", "plain answer"),
    ("<think>\nwhy\n</think>\n\nbecause", None, "why", "because"),
    ("  \n<think>why</think>because", None, "why", "because"),
    ("Well: <think>why</think>because", None, "why", "Well: because"),
    ("why</think>because", OPENED, "why", "because"),
    ("<think>why</think>because", OPENED, "why", "because"),
    ("<think>why, and no end", None, "why, and no end", ""),
    ("why, and no end", OPENED, "why, and no end", ""),
    ("<think></think>\n\n19", None, "", "19"),
    ("<think>a<think>b</think>c", None, "a<think>b", "c"),
    ("<think>a</think>b<think>c</think>d", None, "a\n\nc", "bd"),
    ("an end</think>alone", None, "", "an end</think>alone"),
    (
        "<think>x</think>```html\n<think>no</think>\n```\nyes",
        None,
        "x",
        "```html\n<think>no</think>\n```\nyes",
    ),
    ("~~~\n```\n<think>\n~~~\n<think>t</think>e", None, "t", "~~~\n```\n<think>\n~~~\ne"),
    ("The `<think>` tag", None, "", "The `<think>` tag"),
    ("a ```b``` c\n<think>t</think>d", None, "t", "a ```b``` c\nd"),
    ("```b```\n<think>t</think>d", None, "t", "```b```\nd"),
    ("[THINK]t[/THINK]a <think>", BRACKETS, "t", "a <think>"),
    ("◁think▷t◁/think▷a", ODD, "t", "a"),
    ("<think>if a < b </ c</think>a <thin", None, "if a < b </ c", "a <thin"),
    ("\n\nanswer ", None, "", "\n\nanswer "),
]


@pytest.mark.parametrize(("text", "markup", "reasoning", "content"), CASES)
def test_whole(text: str, markup: Markup | None, reasoning: str, content: str) -> None:
    """Each kind of reply is split by the rules."""
    assert split_thinking(text, markup) == (reasoning, content)


@pytest.mark.parametrize(("text", "markup", "reasoning", "content"), CASES)
def test_one_character_at_a_time(text: str, markup: Markup | None, reasoning: str, content: str) -> None:
    """The hardest chunking gives the same result."""
    reply = ThinkingText(markup)
    for character in text:
        reply.feed(character)
    reply.finish()
    assert (reply.reasoning, reply.content) == (reasoning, content)


fragments = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<thi",
        "</",
        "<",
        ">",
        "\n",
        "\n\n",
        " ",
        "```",
        "~~~",
        "`",
        "```py\n",
        "word",
        "é",
        "   ",
    ]
)
texts = st.lists(fragments | st.text(max_size=6), max_size=24).map("".join)
markups = st.sampled_from([Markup(), OPENED, BRACKETS])


def pieces_of(text: str, cuts: list[int], markup: Markup) -> list[tuple[str, str]]:
    """Feed `text` cut at these places; return its pieces, with neighbours of one kind joined."""
    splitter = ThinkSplitter(markup)
    places = sorted({cut % (len(text) + 1) for cut in cuts} | {0, len(text)})
    raw = [piece for a, b in itertools.pairwise(places) for piece in splitter.feed(text[a:b])]
    joined: list[tuple[str, str]] = []
    for kind, piece in raw + splitter.finish():
        if joined and joined[-1][0] == kind:
            joined[-1] = (kind, joined[-1][1] + piece)
        else:
            joined.append((kind, piece))
    return joined


@given(texts, st.lists(st.integers(0, 400), max_size=20), markups)
def test_any_chunking_gives_the_same_pieces(text: str, cuts: list[int], markup: Markup) -> None:
    """The places of the cuts change nothing."""
    assert pieces_of(text, cuts, markup) == pieces_of(text, [], markup)


@given(texts, st.lists(st.integers(0, 400), max_size=20), markups)
def test_no_character_is_lost_or_doubled(text: str, cuts: list[int], markup: Markup) -> None:
    """The pieces in order are the text."""
    assert "".join(piece for _, piece in pieces_of(text, cuts, markup)) == text


@given(texts, markups)
def test_only_tags_and_blank_space_are_markup(text: str, markup: Markup) -> None:
    """Only tags and blank space are missing from both thinking and answer."""
    for kind, piece in pieces_of(text, [], markup):
        if kind == "markup":
            assert piece.replace(markup.open, "").replace(markup.close, "").strip() == ""


@given(st.text(alphabet="ab \n<", max_size=20))
def test_text_without_tags_is_left_alone(text: str) -> None:
    """The reply of a model that does not think comes back unchanged."""
    assert split_thinking(text) == ("", text)


def test_thinking_is_streamed_as_it_comes() -> None:
    """Thinking streams before its block is closed."""
    reply = ThinkingText()
    reply.feed("<think>")
    assert reply.feed("First") == ("First", "")
    assert reply.splitter.thinking
    assert reply.feed(", add.</think>") == (", add.", "")
    assert reply.feed("4") == ("", "4")


WRAPPED = Markup(answer=("<answer>", "</answer>"))


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_tags_around_the_answer_are_dropped(size: int) -> None:
    """A wrapped answer comes out without its tags, streamed or whole."""
    text = "<think>\nwhy\n</think>\n<answer>\nbecause <b>\n</answer>"
    reply = ThinkingText(WRAPPED)
    for start in range(0, len(text), size):
        reply.feed(text[start : start + size])
    reply.finish()
    assert (reply.reasoning, reply.content) == ("why", "because <b>")


def test_a_cut_wrapped_answer_keeps_its_text() -> None:
    """A reply that ends before its closing tag loses only the opening tag."""
    assert split_thinking("<answer>\nbecause", WRAPPED) == ("", "because")


@given(texts, st.lists(st.integers(0, 400), max_size=20))
def test_after_a_forced_close_all_is_answer(text: str, cuts: list[int]) -> None:
    """After a forced close all tags are dropped, and no text is thinking."""
    places = sorted({cut % (len(text) + 1) for cut in cuts} | {0, len(text)})
    reply = ThinkingText()
    streamed = "".join(reply.feed_answer(text[a:b]) for a, b in itertools.pairwise(places))
    streamed += reply.finish_answer()
    whole = ThinkingText()
    whole.feed_answer(text)
    whole.finish_answer()
    assert streamed == reply.content == whole.content
    assert not reply.reasoning


def test_a_repeated_closing_tag_is_no_answer() -> None:
    """A closing tag after the gateway's own is no part of the answer."""
    reply = ThinkingText()
    reply.feed_answer("7\n</think>")
    reply.finish_answer()
    assert reply.content == "7\n"


def parts_of(text: str, cuts: list[int]) -> list[str]:
    """Cut a text at these places."""
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    return [text[start:end] for start, end in itertools.pairwise(places)]


@given(st.text("ab <>/think\n`"), st.lists(st.integers(0, 40)), st.booleans())
def test_an_open_block_is_given_back_as_it_came(text: str, cuts: list[int], opened: bool) -> None:
    """Where no closing tag was seen, thinking and answer together are the text to the letter."""
    reply = ThinkingText(Markup(opened=opened))
    for piece in parts_of(text, cuts):
        reply.feed(piece)
    reply.finish()
    shown = reply.reasoning, reply.content
    if reply.splitter.closed:
        return
    if reply.splitter.thinking:
        reply.return_block()
    assert (reply.reasoning, reply.content) == ("", text)
    assert len(shown[0]) + len(shown[1]) <= len(text)


def test_only_the_open_block_is_given_back() -> None:
    """A block that was closed before stays thinking."""
    reply = ThinkingText()
    for piece in ("<think>a</thi", "nk>\nb <think> c", " d "):
        reply.feed(piece)
    reply.finish()
    assert (reply.reasoning, reply.content) == ("a\n\nc d ", "b ")
    assert reply.return_block() == "<think> c d "
    assert (reply.reasoning, reply.content) == ("a", "b <think> c d ")


def test_thinking_is_assumed_until_a_tag_is_seen() -> None:
    """Only a block that the template opens is assumed; a repeated opening tag is proof."""
    for text, assumed in (("Hm", True), ("<think>Hm", False), ("Hm</think>so", False)):
        splitter = ThinkSplitter(OPENED)
        splitter.feed(text)
        assert splitter.assumed is assumed
    splitter = ThinkSplitter()
    splitter.feed("<think>Hm")
    assert not splitter.assumed


@pytest.mark.parametrize("cut", [0, 5, 12, 24, 30])
def test_harmonys_tags_around_an_answer_are_left_out(cut: int) -> None:
    """Some engines' parsers leave them in gpt-oss's answer, wherever the stream cuts them."""
    family = find_family("gpt-oss-20b")
    text = "<|channel|>final<|message|>Four.<|return|>"
    reply = ThinkingText(Markup(family.open, family.close, answer=family.answer))
    for part in (text[:cut], text[cut:]):
        reply.feed(part)
    reply.finish()
    assert (reply.reasoning, reply.content) == ("", "Four.")
