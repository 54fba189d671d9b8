"""The image and the compose file keep their promises, checked without a Docker daemon.

The tests run the image's own command and the health checks unchanged, but for a free port.
"""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PORT = "8000"


def dockerfile() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions with their arguments, without comments and line breaks."""
    text = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


def final_stage() -> dict[str, str]:
    """Return the last stage's instructions; of repeated ones the last, as in Docker."""
    instructions = dockerfile()
    start = max(i for i, (name, _) in enumerate(instructions) if name == "FROM")
    return dict(instructions[start:])


def image_command() -> list[str]:
    """Return the command that the container runs."""
    stage = final_stage()
    return [*json.loads(stage["ENTRYPOINT"]), *json.loads(stage["CMD"])]


def image_healthcheck() -> list[str]:
    """Return the command of the container's health check."""
    return json.loads(final_stage()["HEALTHCHECK"].partition(" CMD ")[2])


def natively(command: list[str], port: int) -> list[str]:
    """Translate a container's command for this Python, this checkout and another port."""
    assert any(PORT in part for part in command)
    command = [part.replace(PORT, str(port)) for part in command]
    if command[0] in {"python", "python3"}:
        return [sys.executable, *command[1:]]
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    module, _, function = scripts[command[0]].partition(":")
    return [
        sys.executable,
        "-c",
        f"import sys; from {module} import {function}; sys.exit({function}())",
        *command[1:],
    ]


def healthy(check: list[str], port: int) -> bool:
    """Return whether a container's health check passes against the server on `port`."""
    return subprocess.run(natively(check, port), stderr=subprocess.DEVNULL, check=False).returncode == 0


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class Engine(BaseHTTPRequestHandler):
    """A running upstream with one model."""

    def do_GET(self) -> None:
        """Answer the two paths that the gateway requests at its start."""
        known = {
            "/v1/models": b'{"object": "list", "data": [{"id": "m", "object": "model"}]}',
            "/health": b"",
        }
        body = known.get(self.path, b"")
        self.send_response(200 if self.path in known else 404)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def engine() -> Iterator[int]:
    """The port of a running upstream."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Engine) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_the_image_has_two_stages_and_runs_without_root() -> None:
    """Build tools stay in the first stage; the last one copies from it and names a user other than root."""
    names = [name for name, _ in dockerfile()]
    stage = final_stage()
    assert names.count("FROM") == 2
    assert stage["COPY"].startswith("--from=build ")
    assert stage["USER"] not in {"root", "0"}
    assert stage["EXPOSE"] == PORT


def test_the_build_sees_sources_only() -> None:
    """The build context lists what may enter it, without git, tests and settings."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    entries = {line[1:] for line in lines if line.startswith("!")}
    packages = {"gateway", "policies", "scorers", "training"}
    assert "*" in lines
    assert entries >= {"pyproject.toml", "constraints.txt", "README.md", *packages}
    assert not entries & {".env", ".git", "tests", "compose.yaml"}


def test_the_gateway_becomes_healthy(engine: int) -> None:
    """The image's health check fails before the image's command runs, and passes after."""
    port = free_port()
    assert not healthy(image_healthcheck(), port)
    env = {
        **os.environ,
        "THINKGATE_UPSTREAM": f"http://127.0.0.1:{engine}/v1",
        "http_proxy": "http://127.0.0.1:9",
    }
    process = subprocess.Popen(natively(image_command(), port), cwd=ROOT, env=env, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not healthy(image_healthcheck(), port):
            assert process.poll() is None, f"{shlex.join(image_command())} ended"
            assert time.monotonic() < deadline, "not healthy within a minute"
    finally:
        process.terminate()
        status = process.wait(timeout=30)
    assert status in {0, -15}


@pytest.mark.parametrize("profile", ["gpu", "cpu"])
def test_each_profile_is_an_engine_and_a_gateway(profile: str) -> None:
    """A profile starts one vLLM and one gateway, which waits for the healthy vLLM and uses it."""
    active = {name: service for name, service in SERVICES.items() if profile in service["profiles"]}
    (gateway,) = (service for service in active.values() if "build" in service)
    ((engine, dependency),) = gateway["depends_on"].items()
    assert len(active) == 2
    assert dependency == {"condition": "service_healthy"}
    assert "healthcheck" in active[engine]
    assert gateway["environment"]["THINKGATE_UPSTREAM"] == f"http://{engine}:{PORT}/v1"


def test_up_alone_means_the_gpu() -> None:
    """Without `--profile` the GPU profile starts, and only its engine reserves a device."""
    lines = (ROOT / ".env").read_text(encoding="utf-8").splitlines()
    assert "COMPOSE_PROFILES=gpu" in lines
    with_device = [name for name, service in SERVICES.items() if "deploy" in service]
    assert [SERVICES[name]["profiles"] for name in with_device] == [["gpu"]]


@pytest.mark.parametrize("name", ["vllm", "vllm-cpu"])
def test_engines_enforce_thinking_limits(name: str) -> None:
    """vLLM's options say where thinking starts and ends, so that it can enforce a limit itself."""
    options = dict(part[2:].split("=", 1) for part in SERVICES[name]["command"] if "=" in part)
    assert options["reasoning-parser"] == "qwen3"
    assert json.loads(options["reasoning-config"]) == {
        "reasoning_start_str": "<think>",
        "reasoning_end_str": "</think>",
    }


@pytest.mark.parametrize("name", ["vllm", "vllm-cpu"])
def test_the_engines_check_follows_its_health(name: str, engine: int) -> None:
    """vLLM's health check passes if /health answers 200, and fails if nobody listens."""
    check = SERVICES[name]["healthcheck"]["test"]
    assert check[0] == "CMD"
    assert healthy(check[1:], engine)
    assert not healthy(check[1:], free_port())


def test_nothing_is_published_beyond_this_machine() -> None:
    """By default the gateway listens on the loopback interface only, and engines publish nothing."""
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published == [f"${{THINKGATE_ADDRESS:-127.0.0.1:{PORT}}}:{PORT}"] * 2


@pytest.mark.skipif(
    not shutil.which("docker-compose"), reason="needs docker-compose (Debian: docker-compose)"
)
@pytest.mark.parametrize("options", [[], ["--profile", "cpu"]], ids=["default", "cpu"])
def test_compose_accepts_the_file(options: list[str]) -> None:
    """Compose itself parses the file in both profiles."""
    command = ["docker-compose", *options, "config", "--quiet"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
