"""The lane against the real vLLM: `make test-vllm`, or `pytest -m vllm tests/vllm` after `install.sh`.

Everything in this folder is marked `vllm` and skipped unless the marker was asked for. Two
servers at most, each started once, on first use: one that splits and limits thinking itself
(`reasoning_server`), one that does neither (`plain_server`). A test about both takes
`vllm_server`, one about what only one of them does takes that one.
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
    """Marks this folder's tests, and skips them where nobody asked for the lane."""
    asked = "vllm" in config.option.markexpr
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.vllm)
            if not asked:
                item.add_marker(pytest.mark.skip(reason="needs the real vLLM: `make test-vllm`"))


@pytest.fixture(scope="session")
def vllm_python() -> str:
    """The python of an environment with vLLM: THINKGATE_VLLM_PYTHON, else the cached one."""
    if given := os.environ.get("THINKGATE_VLLM_PYTHON"):
        if not Path(given).exists():
            pytest.fail(f"THINKGATE_VLLM_PYTHON names {given}, which is not there")
        return given
    where = subprocess.run([HERE / "install.sh", "--where"], capture_output=True, text=True, check=True)
    python = Path(where.stdout.strip())
    if not (python.parent.parent / "complete").exists():
        pytest.skip(f"vLLM is not installed in {python.parent.parent}: run tests/vllm/install.sh")
    return str(python)


@pytest.fixture(scope="session")
def tiny_model(vllm_python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the model of `tiny_model.py`."""
    directory = tmp_path_factory.mktemp("model") / "tiny"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    subprocess.run([vllm_python, HERE / "tiny_model.py", directory], env=environment, check=True)
    return directory


@pytest.fixture(scope="session")
def reasoning_server(
    vllm_python: str, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VllmServer]:
    """A vLLM that splits off the thinking (deepseek_r1) and keeps `thinking_token_budget`."""
    log = tmp_path_factory.mktemp("reasoning") / "vllm.log"
    with serve(vllm_python, tiny_model, log, REASONING_OPTIONS, context=ROOMY) as server:
        yield server


@pytest.fixture(scope="session")
def plain_server(
    vllm_python: str, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VllmServer]:
    """A vLLM that leaves the thinking in the text and refuses `thinking_token_budget`."""
    log = tmp_path_factory.mktemp("plain") / "vllm.log"
    with serve(vllm_python, tiny_model, log, context=ROOMY) as server:
        yield server


@pytest.fixture(params=["reasoning", "plain"])
def vllm_server(request: pytest.FixtureRequest) -> VllmServer:
    """Each of the two servers in turn."""
    server = request.getfixturevalue(f"{request.param}_server")
    assert isinstance(server, VllmServer)
    return server
