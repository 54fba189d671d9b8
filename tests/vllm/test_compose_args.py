"""vLLM's own argument parser accepts the vLLM commands of the compose file."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

COMPOSE = Path(__file__).parents[2] / "compose.yaml"
READ_ARGUMENTS = """\
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.reasoning import ReasoningParserManager
from vllm.utils.argparse_utils import FlexibleArgumentParser

read = []
for command in json.load(sys.stdin):
    args = make_arg_parser(FlexibleArgumentParser()).parse_args(command)
    validate_parsed_serve_args(args)
    if args.reasoning_parser:
        ReasoningParserManager.get_reasoning_parser(args.reasoning_parser)
    read.append({name: str(value) for name, value in vars(args).items()})
print(json.dumps(read))
"""


def resolve(text: str) -> str:
    """Replace Compose's `${NAME:-default}` by the default."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def vllm_commands() -> dict[str, list[str]]:
    """Return the command of each service with a vLLM image, by the service's name."""
    services: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    return {
        name: [resolve(part) for part in service["command"]]
        for name, service in services.items()
        if "vllm" in service.get("image", "")
    }


@pytest.fixture(scope="module")
def parsed(vllm_python: str) -> dict[str, dict[str, str]]:
    """Return the arguments that vLLM reads from each command; it refuses unknown ones."""
    if not COMPOSE.exists():
        pytest.skip("compose.yaml does not exist")
    commands = vllm_commands()
    process = subprocess.run(
        [vllm_python, "-c", READ_ARGUMENTS],
        input=json.dumps(list(commands.values())),
        env={**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return dict(zip(commands, json.loads(process.stdout.splitlines()[-1]), strict=True))


def test_vllm_accepts_every_command(parsed: dict[str, dict[str, str]]) -> None:
    """The file has at least one command, and each names its model."""
    assert parsed
    assert all(args["model_tag"] != "None" for args in parsed.values())


def test_limits_are_enforced_and_end_on_the_models_own_tag(parsed: dict[str, dict[str, str]]) -> None:
    """Each command has a parser, and a reasoning config that ends on the tag, as in `REASONING_OPTIONS`."""
    for args in parsed.values():
        assert args["reasoning_parser"] != "None"
        assert "reasoning_start_str='<think>'" in args["reasoning_config"]
        assert "reasoning_end_str='</think>'" in args["reasoning_config"]
