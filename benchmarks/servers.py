"""Start servers for a benchmark, each on its own core, and read their processor time."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["COMMANDS", "Server", "cores", "machine", "pinned", "processor_seconds", "running"]

LIBRARIES = (
    "fastapi",
    "starlette",
    "uvicorn",
    "uvloop",
    "httptools",
    "aiohttp",
    "httpx",
    "orjson",
    "pydantic",
)


@dataclass(frozen=True, slots=True)
class Server:
    """One server under test: its address, and its process unless it is the stub itself."""

    port: int
    process: subprocess.Popen[bytes]


def uvicorn(app: str, port: int) -> list[str]:
    options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    return [
        sys.executable,
        "-m",
        "uvicorn",
        "--factory",
        app,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        *options,
    ]


def gateway(port: int) -> list[str]:
    return [sys.executable, "-m", "gateway", "serve", "--host", "127.0.0.1", "--port", str(port)]


COMMANDS: dict[str, Callable[[int], list[str]]] = {
    "stub": lambda port: [sys.executable, "-m", "benchmarks.stub_upstream", str(port)],
    "bare": lambda port: uvicorn("benchmarks.passthrough:with_aiohttp", port),
    "stub-vllm": lambda port: [sys.executable, "-m", "benchmarks.stub_upstream", str(port), "vllm"],
    "gateway": gateway,
    "gateway-vllm": gateway,
    "bare-httpx": lambda port: uvicorn("benchmarks.passthrough:with_httpx", port),
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(name: str, core: int | None, upstream: str) -> Iterator[Server]:
    """Start one server on one core, wait until it listens, stop it at the end."""
    port = free_port()
    env = {**os.environ, "UPSTREAM": upstream, "THINKGATE_UPSTREAM": f"{upstream}/v1"}
    process = subprocess.Popen(
        COMMANDS[name](port), env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        wait_for(name, process, port)
        yield Server(port, process)
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_for(name: str, process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"{name} ended with status {process.returncode} before it listened")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"{name} did not listen within 60 seconds")


def processor_seconds(pid: int) -> float:
    """Return the user and system time of a process and its children; 0 if the system has no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0.0
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(processor_seconds(int(child)) for child in children)


def machine() -> dict[str, Any]:
    """Describe the machine and libraries of a measurement."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Pin this process to one core within the block."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cores() -> tuple[int | None, int | None]:
    """Return the core of the server under test, and that of the stub and the load generator."""
    if not hasattr(os, "sched_getaffinity"):
        print("this system can't pin processes: the results will vary", file=sys.stderr)
        return None, None
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        raise SystemExit("two cores are required: one for the server under test, one for everything else")
    return available[0], available[1]
