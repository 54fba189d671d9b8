"""The `thinkgate` command, as people run it."""

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest

from gateway.cli import main
from tests.stub_engine import Json, stub_engine

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def running(*arguments: str, **environ: str) -> AsyncIterator[Process]:
    """Run `thinkgate` as a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", *arguments),
        cwd=ROOT,
        env={**os.environ, **environ},
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
async def test_serve_prints_its_address_and_ends_on_a_signal(ending: signal.Signals) -> None:
    """The printed address answers; a signal ends the process without a traceback."""
    async with (
        stub_engine() as server,
        running("serve", "--port", "0", THINKGATE_UPSTREAM=server.base_url) as process,
    ):
        server.answers(
            "/v1/chat/completions",
            Json({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}),
        )
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        url = line.split()[-1]
        assert url.startswith("http://127.0.0.1:")
        async with httpx.AsyncClient() as client:
            ask = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
            reply = await client.post(f"{url}/chat/completions", json=ask)
            assert reply.json()["choices"][0]["message"]["content"] == "hi"
        process.send_signal(ending)
        async with asyncio.timeout(20):
            _, errors = await process.communicate()
        assert b"Traceback" not in errors


async def test_an_engine_that_cannot_start_is_one_sentence(tmp_path: Path) -> None:
    """A file that is not a model ends `serve` with status 1 and the reason, without a traceback."""
    (tmp_path / "model.gguf").write_bytes(b"nothing of the kind")
    model = str(tmp_path / "model.gguf")
    async with running(
        "serve", "--port", "0", THINKGATE_UPSTREAM="", THINKGATE_EMBEDDED_MODEL=model
    ) as process:
        async with asyncio.timeout(20):
            _, errors = await process.communicate()
        assert process.returncode == 1
        assert b"Traceback" not in errors
        assert f"{model} is not a GGUF file" in errors.decode()


def test_a_wrong_setting_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`serve` ends with status 2 and the setting's name, without a traceback."""
    config = tmp_path / "thinkgate.toml"
    config.write_text("prot = 1\n")
    assert main(["serve", "--config", str(config)]) == 2
    assert "prot" in capsys.readouterr().err


def test_a_taken_port_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`serve` ends with status 1 and the address, without a traceback."""
    config = tmp_path / "thinkgate.toml"
    config.write_text('upstream = "http://127.0.0.1:9/v1"\n')
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--config", str(config), "--port", str(port)]) == 1
    assert f"can't listen on 127.0.0.1:{port}" in capsys.readouterr().err


def test_the_version_is_the_installed_one(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` prints one line to stdout and ends with status 0."""
    with pytest.raises(SystemExit) as exit_info:
        main(["--version"])
    assert exit_info.value.code == 0
    assert capsys.readouterr().out == f"thinkgate {version('thinkgate')}\n"


async def test_a_checkout_that_is_not_installed_has_no_version(tmp_path: Path) -> None:
    """`--version` says that the version is unknown, instead of a traceback."""
    load = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from gateway.cli import main; main([])"
    code = f"{load}; sys.path.clear(); main(['--version'])"
    run = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=tmp_path, stdout=PIPE, stderr=PIPE
    )
    output, _ = await run.communicate()
    assert output.decode() == "thinkgate unknown (not installed)\n"


def test_a_bare_command_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    """The help lists every command and goes to stderr; the status is 2, so that a script notices."""
    assert main([]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert all(
        command in printed.err for command in ("serve", "demo", "replay", "keys", "train", "--version")
    )


@pytest.mark.parametrize("arguments", [["nonsense"], ["serve", "--port", "many"]])
def test_a_wrong_command_line_prints_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The status is 2, as argparse has it."""
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    assert "usage: thinkgate" in capsys.readouterr().err
