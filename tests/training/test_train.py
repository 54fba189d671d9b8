"""`thinkgate train` on the command line, and what it may import."""

import subprocess
import sys
from pathlib import Path

import pytest

from training.config import ConfigError, read_config
from training.stages import run_stage
from training.train import main

RUN = """
name = "a"
output = "{output}"
pipeline = ["rl"]
data = [{{ kind = "additions" }}]
model = {{ path = "somewhere" }}
held_out = {{ sources = [{{ kind = "additions" }}] }}
[rl]
max_steps = 1
"""

PURE = """
import importlib, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "trl", "datasets", "peft", "accelerate",
                                      "reasoning_gym", "gguf", "safetensors", "tokenizers", "numpy"}:
            raise ImportError(name)

sys.meta_path.insert(0, Absent())
import training
names = [module.name for module in pkgutil.walk_packages(training.__path__, "training.")]
print(*(name for name in names if not fine(name)))
"""
FINE = """
def fine(name):
    try:
        return bool(name == "training.__main__" or importlib.import_module(name))
    except ImportError:
        return False
"""
HEAVY = (
    "training.trainer.",
    "training.stages.",
    "training.scorer.",
    "training.tiny.model",
    "training.stages.measure",
)


def test_only_what_runs_a_model_needs_torch() -> None:
    """Every other module of training can be imported without torch, TRL and their like."""
    code = FINE + PURE
    listing = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    failed = listing.stdout.split()
    assert "training.trainer.grpo" in failed
    assert [name for name in failed if not name.startswith(HEAVY)] == []


def test_a_stage_without_a_table_is_an_error(tmp_path: Path) -> None:
    """A stage that is named on the command line needs its table, whatever the pipeline lists."""
    path = tmp_path / "run.toml"
    path.write_text(RUN.format(output=tmp_path / "out"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"there is no table \[zero\]"):
        run_stage(read_config(path), "zero")


def test_a_missing_file_or_package_is_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistake of the user is explained without a traceback."""
    assert main(["rl", str(tmp_path / "none.toml")]) == 2
    message = capsys.readouterr().err
    assert "can't be read" in message or "pip install" in message
    assert len(message.splitlines()) == 1
