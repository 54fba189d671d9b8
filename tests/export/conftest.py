"""The test lane against the engines' own code: `make test-export`, or `pytest -m export` after `install.sh`.

All tests here have the marker `export` and are skipped unless it is selected. Probes load the exports into
verl, OpenRLHF, accelerate and DeepSpeed. They run once each, in their own environment, and write their
findings as JSON for the tests.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

RUN = """
name = "exported"
output = "{output}"
pipeline = ["rl"]
data = [{{ kind = "additions", digits = 1 }}]
general = [{{ kind = "errands" }}]
model = {{ path = "{model}", family = "thinkgate", lora = {{ rank = 4, alpha = 8 }} }}
held_out = {{ sources = [{{ kind = "additions", digits = 1 }}], count = 6, budget = "high" }}

[rl]
problems = 40
max_steps = 6
warmup_steps = 2
learning_rate = 2e-4
groups = 2
num_generations = 4
per_device_train_batch_size = 4
rounds = 2
num_iterations = 2
save_steps = 4
beta = 0.01
max_completion_length = 24
final_completion_length = 48
budgets = {{ off = 1, high = 1, none = 1 }}
rewards = {{ format = 0.25, budget = 0.5 }}
vllm_server_base_url = "http://127.0.0.1:8123"

[cold-start]
problems = 20
max_steps = 4
batch = 4
budgets = {{ off = 1, low = 1 }}
general = 0.2
"""

Probe = Callable[..., dict[str, Any]]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark this folder's tests, and skip them unless the lane is selected."""
    selected = "export" in config.option.markexpr
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.export)
            if not selected:
                item.add_marker(pytest.mark.skip(reason="needs the engines' own code: `make test-export`"))


@pytest.fixture(scope="session")
def engines_python() -> str:
    """The Python of an environment with the engines: THINKGATE_EXPORT_PYTHON, else the cached one."""
    if chosen := os.environ.get("THINKGATE_EXPORT_PYTHON"):
        if not Path(chosen).exists():
            pytest.fail(f"THINKGATE_EXPORT_PYTHON names {chosen}, which does not exist")
        return chosen
    location = subprocess.run([HERE / "install.sh", "--where"], capture_output=True, text=True, check=True)
    python = Path(location.stdout.strip())
    if not (python.parent.parent / "complete").exists():
        pytest.skip(f"the engines are not installed in {python.parent.parent}: run tests/export/install.sh")
    return str(python)


@pytest.fixture(scope="session")
def probe(engines_python: str, tmp_path_factory: pytest.TempPathFactory) -> Probe:
    """Run a script of this folder in the engines' environment; return its findings."""
    folder = tmp_path_factory.mktemp("probes")
    findings: dict[tuple[str, ...], dict[str, Any]] = {}

    def run(script: str, *arguments: str | Path) -> dict[str, Any]:
        key = (script, *map(str, arguments))
        if key not in findings:
            out = folder / f"{len(findings)}.json"
            environment = {
                **os.environ,
                "HF_HUB_OFFLINE": "1",
                "HF_HOME": str(folder),
                "HOME": str(folder),  # verl and Ray write there
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": str(ROOT),
                "PYTHONWARNINGS": "ignore",
            }
            process = subprocess.run(
                [engines_python, HERE / script, out, *arguments],
                env=environment,
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=900,
                check=False,
            )
            assert process.returncode == 0, f"{script}: {process.stdout[-2000:]}\n{process.stderr[-4000:]}"
            findings[key] = json.loads(out.read_text(encoding="utf-8"))
        return findings[key]

    return run


@pytest.fixture(scope="session")
def exported(probe: Probe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with every target's export of every stage, named TARGET-STAGE."""
    folder = tmp_path_factory.mktemp("exported")
    run = RUN.format(output=folder / "out", model=folder / "model")
    (folder / "run.toml").write_text(run, encoding="utf-8")
    assert probe("make_exports.py", folder)["statuses"] == [0] * 6
    return folder
