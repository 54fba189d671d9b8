"""The embedded engine: llama.cpp in a process of its own, on a random loopback port with a random key.

It has its own process for three reasons. A crash in native code then costs one request and
not the gateway. Only the environment at its start can tune how its threads wait. And it
shares no interpreter lock with the event loop.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import signal
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.upstreams.embedded.model_store import SMOLLM2, ModelUnavailable, ensure_model
from scorers.grader.safe_python import python_environment

__all__ = ["EmbeddedEngine", "EmbeddedOptions", "EngineFailed", "cpu_quota", "with_sleeping_threads"]

_log = logging.getLogger(__name__)
_COMMAND = (sys.executable, "-P", str(Path(__file__).with_name("llama_server.py")))
_ERROR_LINE = re.compile(r"[\d.]+ E (?:\w+ +)?\w+: (.+)")
"""A line that llama.cpp logs for an error: time, level, sometimes a component, function, message."""
_GRACE = 5.0
"""Seconds that the engine gets to end by itself before it is killed."""


class EngineFailed(Exception):
    """The embedded engine can't run; the message is one sentence for the person at the terminal."""


@dataclass(frozen=True, slots=True)
class EmbeddedOptions:
    """How to run the engine.

    `model_path` is any GGUF file (None: SmolLM2-135M-Instruct, fetched once). `slots` samples run
    at a time, with up to `context` tokens each; both cost memory (SmolLM2: 23 KiB a token). Each
    adapter of `loras`, in GGUF form, makes a model of its own. `threads` None means one for each
    core that this process may use.
    """

    model_path: Path | None = None
    slots: int = 16
    context: int = 2048
    loras: tuple[Path, ...] = ()
    threads: int | None = None


class EmbeddedEngine:
    """llama.cpp's server as a child process; also an async context manager.

    `base_url` (`http://127.0.0.1:PORT/v1`) and `api_key` are valid after `start`. `model_name` is the
    base model's name. `adapter_names` are in llama.cpp's order: a request chooses one with the field
    `lora`, and a request without it gets the first. `command` is the process to run, see `llama_server`.
    """

    def __init__(self, options: EmbeddedOptions | None = None, command: Sequence[str] = _COMMAND) -> None:
        self.options = options = options or EmbeddedOptions()
        self._command = command
        self.api_key = secrets.token_urlsafe(32)
        self.model_name = _base_name(options)
        self.adapter_names = tuple(lora.stem for lora in options.loras)
        self._port = 0
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self._log_lines: deque[str] = deque(maxlen=20)
        self._listener: asyncio.Task[None] | None = None

    @property
    def served_name(self) -> str:
        """The one name under which llama.cpp serves everything."""
        return (*self.adapter_names, self.model_name)[0]

    @property
    def base_url(self) -> str:
        """The address of the OpenAI-compatible routes."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def pid(self) -> int | None:
        """The id of the running process; None if none runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def wait(self) -> None:
        """Wait until the process has ended, by `close` or by itself; return at once if none runs."""
        if self._process is not None:
            await self._process.wait()

    async def start(self) -> None:
        """Fetch the model and start the engine, unless it runs. After a crash it gets its old address.

        Raises `ModelUnavailable` or `EngineFailed`.
        """
        async with self._starting:
            if self.pid is not None:
                return
            model = await asyncio.to_thread(_check_files, self.options)
            await self._launch(model)

    async def close(self) -> None:
        """Stop the engine, and drop whatever it was generating."""
        async with self._starting:
            process, self._process = self._process, None
            if process is None:
                return
            if process.stdin is not None:
                process.stdin.close()
            try:
                async with asyncio.timeout(_GRACE):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
            if self._listener is not None:
                await self._listener

    async def __aenter__(self) -> EmbeddedEngine:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def _launch(self, model: Path) -> None:
        pipe = asyncio.subprocess.PIPE
        # In a session of its own, because Ctrl-C at the terminal is for the gateway, which then closes it.
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            env=with_sleeping_threads(python_environment()),
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._log_lines.clear()
        self._listener = asyncio.create_task(self._listen(process.stderr))
        self._process = process
        try:
            process.stdin.write(json.dumps(self._request(model)).encode() + b"\n")
            reply = await process.stdout.readline()
        except ConnectionError:
            reply = b""
        except asyncio.CancelledError:
            process.kill()
            raise
        answer = json.loads(reply) if reply else {}
        if "port" not in answer:
            self._process = None
            code = await process.wait()
            await self._listener
            raise EngineFailed(_explain(answer.get("error"), self._log_lines, code, model))
        self._port = answer["port"]

    def _request(self, model: Path) -> dict[str, Any]:
        options = self.options
        return {
            "model": str(model),
            "name": self.served_name,
            "slots": options.slots,
            "context": options.context,
            "threads": options.threads or cpu_quota(),
            "loras": list(map(str, options.loras)),
            "port": self._port,
            "key": self.api_key,
        }

    async def _listen(self, errors: asyncio.StreamReader) -> None:
        async for line in errors:
            text = line.decode("utf-8", "replace").rstrip()
            self._log_lines.append(text)
            _log.debug("embedded engine: %s", text)


def _base_name(options: EmbeddedOptions) -> str:
    return SMOLLM2.name if options.model_path is None else options.model_path.stem


def _check_files(options: EmbeddedOptions) -> Path:
    """Check that model and adapters are GGUF files with different names; return the model's file."""
    for index, lora in enumerate(options.loras):
        _check_gguf(lora, "adapter")
        if lora.stem in (_base_name(options), *(other.stem for other in options.loras[:index])):
            raise ModelUnavailable(f"The adapter {lora} has the name of another model.")
    if options.model_path is None:
        return ensure_model()
    _check_gguf(options.model_path, "model")
    return options.model_path


def _check_gguf(path: Path, kind: str) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ModelUnavailable(f"The {kind} {path} can't be read: {error.strerror}.") from error
    if magic != b"GGUF":
        raise ModelUnavailable(f"The {kind} {path} is not a GGUF file.")


def with_sleeping_threads(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the engine's environment, in which waiting threads soon sleep. The operator's own values stay.

    OpenMP's threads spin at barriers. If other processes want the cores too, a spinning thread
    blocks the very thread that it waits for. Two threads beside two busy processes fell to 2 tokens
    a second, and reach 27 with this setting.
    """
    if "OMP_WAIT_POLICY" in environ:
        return dict(environ)
    return {"GOMP_SPINCOUNT": "1000", **environ}


def cpu_quota(path: Path = Path("/sys/fs/cgroup/cpu.max")) -> int | None:
    """Return the whole cores that a container's CPU quota allows (cgroup v2); None without a quota."""
    try:
        quota, period = path.read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else max(1, int(quota) // int(period))


def _explain(error: str | None, log_lines: deque[str], code: int, model: Path) -> str:
    """Return why the engine could not start, in one sentence that says what to do if that is known."""
    if error and error.startswith("ModuleNotFoundError"):
        return "The embedded engine is not installed; run: pip install 'thinkgate[local]'."
    if error and "libgomp" in error:
        return "The embedded engine needs the system library libgomp (on Debian: apt-get install libgomp1)."
    messages = [match[1] for line in log_lines if (match := _ERROR_LINE.match(line))]
    if messages:  # the first is the cause, the others follow from it
        reason = messages[0]
    elif error is not None:
        reason = error
    else:
        end = f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"
        reason = f"it ended with {end}" + (f" ({log_lines[-1]})" if log_lines else "")
    return f"The embedded engine could not start with {model}: {reason.rstrip('.')}."
