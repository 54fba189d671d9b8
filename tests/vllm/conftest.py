"""The test lane against the real vLLM: `make test-vllm`, or `pytest -m vllm tests/vllm` after `install.sh`.

All tests here have the marker `vllm` and are skipped unless it is selected. They share two servers, each
started once, on first use. `reasoning_server` splits and limits thinking itself; `plain_server` does
neither. A test about both uses `vllm_server`; a test about one of them uses that one.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vllm.server import REASONING_OPTIONS, ROOMY, VllmServer, serve

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark this folder's tests, and skip them unless the lane is selected."""
    selected = "vllm" in config.option.markexpr
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.vllm)
            if not selected:
                item.add_marker(pytest.mark.skip(reason="needs the real vLLM: `make test-vllm`"))


@pytest.fixture(scope="session")
def vllm_python() -> str:
    """Return the Python of an environment with vLLM: THINKGATE_VLLM_PYTHON, else the cached one."""
    if chosen := os.environ.get("THINKGATE_VLLM_PYTHON"):
        if not Path(chosen).exists():
            pytest.fail(f"THINKGATE_VLLM_PYTHON names {chosen}, which does not exist")
        return chosen
    location = subprocess.run([HERE / "install.sh", "--where"], capture_output=True, text=True, check=True)
    python = Path(location.stdout.strip())
    if not (python.parent.parent / "complete").exists():
        pytest.skip(f"vLLM is not installed in {python.parent.parent}: run tests/vllm/install.sh")
    return str(python)


@pytest.fixture(scope="session")
def tiny_model(vllm_python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the model of `tiny_model.py`; return its folder."""
    directory = tmp_path_factory.mktemp("model") / "tiny"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    subprocess.run([vllm_python, HERE / "tiny_model.py", directory], env=environment, check=True)
    return directory


@pytest.fixture(scope="session")
def reasoning_server(
    vllm_python: str, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VllmServer]:
    """Start a vLLM that splits off the thinking (deepseek_r1) and enforces `thinking_token_budget`."""
    log = tmp_path_factory.mktemp("reasoning") / "vllm.log"
    with serve(vllm_python, tiny_model, log, REASONING_OPTIONS, context=ROOMY) as server:
        yield server


@pytest.fixture(scope="session")
def plain_server(
    vllm_python: str, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VllmServer]:
    """Start a vLLM that leaves the thinking in the text and refuses `thinking_token_budget`."""
    log = tmp_path_factory.mktemp("plain") / "vllm.log"
    with serve(vllm_python, tiny_model, log, context=ROOMY) as server:
        yield server


@pytest.fixture(params=["reasoning", "plain"])
def vllm_server(request: pytest.FixtureRequest) -> VllmServer:
    """Return each of the two servers in turn."""
    server = request.getfixturevalue(f"{request.param}_server")
    assert isinstance(server, VllmServer)
    return server
