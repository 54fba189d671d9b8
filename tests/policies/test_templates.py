"""What a checkpoint's own chat template tells about its family."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from policies.families import Family, find_family
from policies.shaping import shape
from policies.templates import probe_requests, refine, refine_rendered, render
from policies.thinking import Markup
from policies.types import SamplingRequest

QWEN3, GENERIC = find_family("qwen3-8b"), find_family("x")
REQUEST = {"messages": [{"role": "user", "content": "q"}]}
OFF = SamplingRequest(level="off", thinking_limit=0)
ON, CLOSED = "<a>q\n<b><think>\n", "<a>q\n<b><think>\n\n</think>\n\n"
"""The end of a prompt that opens a block, and of one that also closes it."""

TEMPLATE = """{%- for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}
{%- if add_generation_prompt %}<|assistant|>
{%- if enable_thinking is defined and enable_thinking is false %}<think></think>{% else %}<think>{% endif %}
{%- endif %}"""


class TestTemplates:
    """A readable template beats the row."""

    def test_probes_are_requests(self) -> None:
        """There is one request for each state of each switch, the plain one first, all valid JSON."""
        requests = probe_requests(QWEN3)
        assert list(requests)[:3] == ["default", "on", "off"]
        assert requests["off"]["chat_template_kwargs"] == {"enable_thinking": False}
        assert json.loads(json.dumps(requests)) == requests

    def test_who_opens_is_seen_in_the_prompt(self) -> None:
        """If a Qwen3's template opens the block, the reply starts inside it."""
        family = refine_rendered(QWEN3, {"default": ON, "on": ON, "off": CLOSED})
        assert family == replace(QWEN3, opened_by="template")

    def test_the_default_is_seen_in_the_prompt(self) -> None:
        """A prompt that equals the one for "off" makes off the default."""
        family = refine_rendered(QWEN3, {"default": CLOSED, "on": ON, "off": CLOSED})
        assert family == replace(QWEN3, opened_by="template", default="off")

    def test_the_switch_is_the_one_that_works(self) -> None:
        """The kwarg that the template reads replaces the one that it ignores."""
        prompts = {"default": ON, "on": ON, "off": ON, "thinking=True": ON, "thinking=False": CLOSED}
        family = refine_rendered(QWEN3, prompts)
        assert shape(family, REQUEST, OFF, None).body["chat_template_kwargs"] == {"thinking": False}

    def test_a_switch_that_does_nothing_is_removed(self) -> None:
        """A model whose switch does nothing gets a closed block for off."""
        family = refine_rendered(QWEN3, {"default": ON, "on": ON, "off": ON})
        assert shape(family, REQUEST, OFF, None).off == "prefill"

    def test_an_unknown_model_is_known_by_its_template(self) -> None:
        """The generic row becomes switchable, or is known to think always."""
        kwargs = {"enable_thinking=True": ON, "enable_thinking=False": CLOSED}
        switchable = refine_rendered(GENERIC, {"default": ON, "on": ON, "off": ON, **kwargs})
        assert shape(switchable, REQUEST, OFF, None).off == "native"
        thinker = refine_rendered(GENERIC, {"default": ON, "on": ON, "off": ON})
        assert shape(thinker, REQUEST, OFF, None).off == "prefill"
        assert shape(thinker, REQUEST, SamplingRequest(), None).markup.opened

    def test_other_tags_are_recognised(self) -> None:
        """The tag at the prompt's end may be any family's."""
        prompt = "<a>q\n<b><thought>\n"
        family = refine_rendered(GENERIC, {"default": prompt, "on": prompt, "off": prompt})
        assert family.markup == Markup("<thought>", "</thought>", opened=True)

    @pytest.mark.parametrize("family", [GENERIC, QWEN3, find_family("smollm2"), find_family("kimi-k2")])
    def test_no_prompts_tell_nothing(self, family: Family) -> None:
        """Without prompts the row stays as it is."""
        assert refine_rendered(family, {}) == family

    def test_tags_are_read_without_rendering(self) -> None:
        """A template's text alone tells its tags, whatever is installed."""
        family = refine(GENERIC, "{{ '[THINK]' + x + '[/THINK]' }}{{ broken( }}")
        assert (family.open, family.close) == ("[THINK]", "[/THINK]")

    def test_a_broken_template_tells_nothing(self) -> None:
        """A template that fails leaves the row as it is."""
        assert render("{{ 1 +", REQUEST) is None
        assert refine(QWEN3, "{{ raise_exception('no') }}<think>") == QWEN3

    def test_a_template_is_rendered_in_the_sandbox(self) -> None:
        """With jinja2 the text tells the switch, the default and who opens the block."""
        pytest.importorskip("jinja2")
        family = refine(GENERIC, TEMPLATE)
        assert (family.opened_by, family.default) == ("template", "on")
        assert shape(family, REQUEST, OFF, None).body["chat_template_kwargs"] == {"enable_thinking": False}
        assert render("{{ ''.__class__.__mro__ }}", REQUEST) is None
