"""Starts the real vLLM on a free loopback port, and reads its metrics."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

__all__ = ["MODEL", "REASONING_OPTIONS", "ROOMY", "VllmServer", "serve"]

MODEL = "tiny"
CONTEXT = 4096
ROOMY = 131_072
"""A context that takes the tiny model minutes to fill: what asks for most of it ends by an abort alone."""
REASONING_OPTIONS = (
    "--reasoning-parser",
    "deepseek_r1",
    "--reasoning-config",
    # Exactly the tag: with a closing sentence in front the engine would not know the model's own
    # closing tag for the end of the thinking, and would put the sentence into the answer.
    '{"reasoning_start_str": "<think>", "reasoning_end_str": "</think>"}',
)
ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",  # heeded only where --enable-lora is given
    "TORCHDYNAMO_DISABLE": "1",  # else the first request for logprobs compiles for half a minute
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_NO_USAGE_STATS": "1",
}
START_SECONDS = 300
POLL_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class VllmServer:
    """A running vLLM: where it listens, what its model is called, and what its metrics say."""

    base_url: str
    model: str
    log: Path
    http: httpx.Client
    """For asking the server directly, with time enough for a busy machine."""

    def metric(self, name: str, label: str = "") -> float:
        """The sum of a metric's samples, over all labels or those with this one."""
        lines = self.http.get("/metrics").raise_for_status().text.splitlines()
        fitting = (line for line in lines if line.startswith(f"{name}{{") and label in line)
        values = [float(line.rsplit(" ", 1)[1]) for line in fitting]
        if not values:
            raise LookupError(f"vLLM has no metric {name}")
        return sum(values)

    def running(self) -> int:
        """How many sequences are being generated or wait for their turn; n=4 counts four."""
        return int(self.metric("vllm:num_requests_running") + self.metric("vllm:num_requests_waiting"))

    def wait_until_idle(self, seconds: float = 30) -> None:
        """Returns once nothing is running; raises TimeoutError where something still is after `seconds`."""
        deadline = time.monotonic() + seconds
        while self.running():
            if time.monotonic() > deadline:
                raise TimeoutError(f"vLLM still has {self.running()} sequences running")

    def started(self) -> int:
        """How many sequences have had their first token since the start; n=4 counts four."""
        return int(self.metric("vllm:time_to_first_token_seconds_count"))

    def completed(self) -> int:
        """How many sequences have come to an end of their own, rather than by an abort."""
        name = "vllm:request_success_total"
        return int(self.metric(name) - self.metric(name, 'finished_reason="abort"'))


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def serve(
    python: str, model: Path, log: Path, options: Sequence[str] = (), *, context: int = CONTEXT
) -> Iterator[VllmServer]:
    """Runs vLLM's API server until the block ends; about 40 seconds to start.

    Raises RuntimeError with the end of the log where it dies on the way up or takes longer
    than `START_SECONDS`.
    """
    port = free_port()
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--model", str(model), "--served-model-name", MODEL, "--max-model-len", str(context)]
    command += ["--dtype", "bfloat16", "--enforce-eager", *options]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # its engine and workers are processes of their own
        )
    base_url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=base_url, timeout=120) as http:
            server = VllmServer(base_url, MODEL, log, http)
            wait_until_healthy(process, server)
            yield server
    finally:
        stop(process)


def wait_until_healthy(process: subprocess.Popen[bytes], server: VllmServer) -> None:
    """Returns once /health answers; raises RuntimeError where the process ends before or never gets there."""
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
    """The end of a log file."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the server and every process that it started."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=20)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # what the API server may have left behind
    process.wait()
