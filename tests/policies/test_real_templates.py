"""The family table against chat templates of real checkpoints, from the package `trl`."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from policies.families import Family, find_family
from policies.shaping import shape
from policies.templates import refine, render
from policies.types import SamplingRequest

pytest.importorskip("jinja2")
SPEC = find_spec("trl")
if SPEC is None or not SPEC.submodule_search_locations:
    pytest.skip("the package trl is not installed", allow_module_level=True)
FOLDER = Path(SPEC.submodule_search_locations[0]) / "chat_templates"

HIGH = SamplingRequest(level="high", thinking_limit=2048)
OFF = SamplingRequest(level="off", thinking_limit=0)
QUESTION = {"messages": [{"role": "user", "content": "How many moons has Mars?"}]}

ROWS = [
    ("deepseek_r1_distill", "DeepSeek-R1-Distill-Qwen-7B"),
    ("gemma4_v5", "gemma-4-27b-it"),
    ("glm4moe", "GLM-4.5"),
    ("gptoss", "gpt-oss-20b"),
    ("nemotron_3_5_lightning", "Nemotron-3.5-Lightning"),
    ("nemotron_3_nano", "NVIDIA-Nemotron-3-Nano-30B"),
    ("nemotron_3_super", "NVIDIA-Nemotron-3-Super"),
    ("nemotron_3_ultra", "NVIDIA-Nemotron-3-Ultra"),
    ("qwen3", "Qwen3-8B"),
    ("qwen3_5_think", "Qwen3.5-9B"),
    ("qwen3_6", "Qwen3.6-9B"),
    ("qwen3_8", "Qwen3.8-9B"),
    ("qwen3_instruct_2507", "Qwen3-4B-Instruct-2507"),
]
"""A template, and the name of a model that has it."""

NOT_THINKING = ["llama3_1", "qwen2_5", "phi3_5", "gemma3"]
"""Templates of models without a thinking block."""


def template(name: str) -> str:
    """Return a template's text."""
    return (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")


def rendered(name: str, family: Family, sampling: SamplingRequest) -> str:
    """Return the prompt for this budget."""
    prompt = render(template(name), shape(family, QUESTION, sampling, None).body)
    assert prompt is not None
    return prompt


@pytest.mark.parametrize(("name", "model"), ROWS)
def test_the_row_agrees_with_the_template(name: str, model: str) -> None:
    """The template contradicts nothing in the table."""
    family = find_family(model)
    assert family.name != "generic"
    assert refine(family, template(name)) == family


@pytest.mark.parametrize(("name", "model"), ROWS)
def test_who_opens_the_block_is_seen_in_the_prompt(name: str, model: str) -> None:
    """The prompt ends inside a block exactly if the markup starts inside one."""
    family = find_family(model)
    for sampling in (HIGH, OFF):
        shaped = shape(family, QUESTION, sampling, None)
        prompt = rendered(name, family, sampling) + shaped.prefill
        inside = prompt.rfind(family.open) > prompt.rfind(family.close)
        assert inside is shaped.markup.opened


@pytest.mark.parametrize(("name", "model"), ROWS)
def test_a_switch_changes_what_the_model_reads(name: str, model: str) -> None:
    """If the family has a switch, its on and off give different prompts."""
    family = find_family(model)
    if family.off is not None and family.default != "never":
        assert rendered(name, family, HIGH) != rendered(name, family, OFF)


@pytest.mark.parametrize("name", NOT_THINKING)
def test_a_template_without_thinking_leaves_the_generic_row(name: str) -> None:
    """A template without a thinking block leaves the generic row as it is."""
    generic = find_family("something-new")
    assert refine(generic, template(name)) == generic


def test_a_template_tells_more_than_the_name() -> None:
    """A checkpoint under an unknown name is known to open its block."""
    learned = refine(find_family("something-new"), template("deepseek_r1_distill"))
    assert (learned.opened_by, learned.default) == ("template", "always")


def test_a_variant_that_is_off_by_default_is_known_to_be() -> None:
    """Only the template tells that this checkpoint does not think by default."""
    family = find_family("Qwen3.5-9B")
    assert refine(family, template("qwen3_5_nothink")).default == "off"
