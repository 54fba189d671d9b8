"""Start the real vLLM on a free loopback port, and read its metrics."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

__all__ = ["MODEL", "REASONING_OPTIONS", "ROOMY", "VllmServer", "free_port", "serve"]

MODEL = "tiny"
CONTEXT = 4096
ROOMY = 131_072
"""A context that the tiny model needs minutes to fill: only an abort ends a request for nearly all of it."""
REASONING_OPTIONS = (
    "--reasoning-parser",
    "deepseek_r1",
    "--reasoning-config",
    # Exactly the tag. With a closing sentence before it, the engine would not recognise the model's own
    # closing tag as the end of the thinking. It would also put the sentence into the answer.
    '{"reasoning_start_str": "<think>", "reasoning_end_str": "</think>"}',
)
ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",  # takes effect only with --enable-lora
    "TORCHDYNAMO_DISABLE": "1",  # otherwise the first request for logprobs compiles for half a minute
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_NO_USAGE_STATS": "1",
}
START_SECONDS = 300
POLL_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class VllmServer:
    """A running vLLM: its address, the name of its model, its process group and its metrics."""

    base_url: str
    model: str
    log: Path
    group: int
    http: httpx.Client
    """A client for direct requests, with timeouts for a busy machine."""

    def metric(self, name: str, label: str = "") -> float:
        """Return the sum of a metric over all label sets, or over those that contain `label`."""
        lines = self.http.get("/metrics").raise_for_status().text.splitlines()
        samples = (line for line in lines if line.startswith(f"{name}{{") and label in line)
        values = [float(line.rsplit(" ", 1)[1]) for line in samples]
        if not values:
            raise LookupError(f"vLLM has no metric {name}")
        return sum(values)

    def running(self) -> int:
        """Count the sequences that vLLM generates or queues; n=4 counts four."""
        return int(self.metric("vllm:num_requests_running") + self.metric("vllm:num_requests_waiting"))

    def wait_until_idle(self, seconds: float = 30) -> None:
        """Return once nothing runs; raise TimeoutError if something still does after `seconds`."""
        deadline = time.monotonic() + seconds
        while self.running():
            if time.monotonic() > deadline:
                raise TimeoutError(f"vLLM still has {self.running()} sequences running")

    def started(self) -> int:
        """Count the sequences that have had their first token since the start; n=4 counts four."""
        return int(self.metric("vllm:time_to_first_token_seconds_count"))

    def kill_engine(self) -> None:
        """Kill the process that generates, which is a child of the API server."""
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                name, _, fields = stat.read_text().partition("(")[2].rpartition(")")
                if int(fields.split()[2]) == self.group and "EngineCor" in name:
                    os.kill(int(stat.parent.name), signal.SIGKILL)
                    return
        raise LookupError("vLLM has no process of that name")

    def kill(self) -> None:
        """Kill all processes at once."""
        os.killpg(self.group, signal.SIGKILL)

    def completed(self) -> int:
        """Count the sequences that ended by themselves, without an abort."""
        name = "vllm:request_success_total"
        return int(self.metric(name) - self.metric(name, 'finished_reason="abort"'))


def free_port() -> int:
    """Return a free loopback port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def serve(
    python: str,
    model: Path,
    log: Path,
    options: Sequence[str] = (),
    *,
    context: int = CONTEXT,
    port: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[VllmServer]:
    """Run vLLM's API server until the block ends; it takes about 40 seconds to start.

    Raises RuntimeError with the end of the log if the server dies during its start or needs more than
    `START_SECONDS`.
    """
    port = port or free_port()
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--model", str(model), "--served-model-name", MODEL, "--max-model-len", str(context)]
    command += ["--dtype", "bfloat16", "--enforce-eager", *options]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **ENVIRONMENT, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # its engine and workers are separate processes
        )
    base_url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=base_url, timeout=120) as http:
            server = VllmServer(base_url, MODEL, log, process.pid, http)
            wait_until_healthy(process, server)
            yield server
    finally:
        stop(process)


def wait_until_healthy(process: subprocess.Popen[bytes], server: VllmServer) -> None:
    """Return once /health answers; raise RuntimeError if the process ends or the time is up before that."""
    for _ in range(int(START_SECONDS / POLL_SECONDS)):
        try:
            process.wait(timeout=POLL_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        else:
            raise RuntimeError(f"vLLM ended with status {process.returncode}:\n{tail(server.log)}")
        try:
            if server.http.get("/health").is_success:
                return
        except httpx.TransportError:
            continue
    raise RuntimeError(f"vLLM did not become healthy in {START_SECONDS} s:\n{tail(server.log)}")


def tail(log: Path, lines: int = 40) -> str:
    """Return the end of a log file."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and all its processes."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=20)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # the processes that the API server may have left
    process.wait()
