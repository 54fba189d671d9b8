"""accelerate's and DeepSpeed's own code accepts the exports for them."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.export.conftest import Probe


@pytest.mark.parametrize("kind", ["fsdp", "deepspeed"])
def test_the_launcher_accepts_the_configuration_and_starts_the_stage(
    exported: Path, probe: Probe, kind: str
) -> None:
    """Its own loader and parser read the command of the script."""
    findings = probe("probe_accelerate.py", exported)[kind]
    assert findings["distributed_type"] == kind.upper()
    assert (findings["use_fsdp"], findings["use_deepspeed"]) == (kind == "fsdp", kind == "deepspeed")
    assert findings["processes"] == 2
    assert findings["module"]
    assert findings["script"] == ["training", "train", "rl", str(exported / "run.toml")]


def test_the_weights_are_sharded_so_that_the_model_can_generate(exported: Path, probe: Probe) -> None:
    """FSDP 2, and ZeRO 2 as DeepSpeed itself reads it."""
    findings = probe("probe_accelerate.py", exported)
    assert findings["fsdp"]["version"] == 2
    assert findings["deepspeed"]["stage"] == [2, 2]


def test_every_script_is_valid_and_the_server_serves_the_start_model(exported: Path) -> None:
    """bash can parse each script; the server listens on the port of the run's table."""
    scripts = sorted(exported.glob("*/*.sh"))
    assert len(scripts) == 7
    for script in scripts:
        subprocess.run([shutil.which("bash") or "bash", "-n", script], check=True)
    serve = (exported / "accelerate-rl" / "serve.sh").read_text(encoding="utf-8")
    assert f"--model {exported / 'model'} --port 8123" in serve
