"""accelerate's and DeepSpeed's own code takes what is exported for them."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.export.conftest import Probe


@pytest.mark.parametrize("kind", ["fsdp", "deepspeed"])
def test_the_launcher_takes_the_configuration_and_starts_the_stage(
    exported: Path, probe: Probe, kind: str
) -> None:
    """Its own loader and parser, from the very line of the script."""
    found = probe("probe_accelerate.py", exported)[kind]
    assert found["distributed_type"] == kind.upper()
    assert (found["use_fsdp"], found["use_deepspeed"]) == (kind == "fsdp", kind == "deepspeed")
    assert found["processes"] == 2
    assert found["module"]
    assert found["script"] == ["training", "train", "rl", str(exported / "run.toml")]


def test_the_weights_are_split_in_a_way_that_can_be_drawn_from(exported: Path, probe: Probe) -> None:
    """FSDP 2, and DeepSpeed's ZeRO 2 by DeepSpeed's own reading of it."""
    found = probe("probe_accelerate.py", exported)
    assert found["fsdp"]["version"] == 2
    assert found["deepspeed"]["stage"] == [2, 2]


def test_every_script_is_sound_and_the_server_serves_the_start_model(exported: Path) -> None:
    """bash reads each to its end; the server listens where the run's table says."""
    scripts = sorted(exported.glob("*/*.sh"))
    assert len(scripts) == 7
    for script in scripts:
        subprocess.run([shutil.which("bash") or "bash", "-n", script], check=True)
    serve = (exported / "accelerate-rl" / "serve.sh").read_text(encoding="utf-8")
    assert f"--model {exported / 'model'} --port 8123" in serve
