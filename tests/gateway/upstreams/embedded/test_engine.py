"""The embedded engine: it starts with nothing configured, and ends with whoever started it."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.upstreams.embedded import engine as local
from gateway.upstreams.embedded.engine import (
    EmbeddedEngine,
    EmbeddedOptions,
    EngineFailed,
    cpu_quota,
    with_sleeping_threads,
)
from gateway.upstreams.embedded.model_store import ModelUnavailable, ensure_model

SERVER = str(Path(local.__file__).with_name("llama_server.py"))
SMALL = EmbeddedOptions(slots=1, context=256)


@pytest.fixture
async def client(engine: EmbeddedEngine) -> AsyncIterator[aiohttp.ClientSession]:
    """A session that has the engine's key."""
    headers = {"Authorization": f"Bearer {engine.api_key}"}
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        yield session


def chat(*messages: str, **fields: Any) -> dict[str, Any]:
    """A chat request; the messages are the user's and the assistant's in turn."""
    roles = ("user", "assistant")
    return {
        "messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(messages)],
        "temperature": 0,
        "max_tokens": 8,
        **fields,
    }


async def refused(url: str) -> None:
    """Returns once nobody listens at the address any more."""
    host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection(host, int(port))
            except OSError:
                return
            writer.close()
            await asyncio.sleep(0.05)


@pytest.mark.embedded
async def test_it_chats(engine: EmbeddedEngine, client: aiohttp.ClientSession) -> None:
    """A plain request comes back in OpenAI's shape, under the model's own name."""
    async with client.post(f"{engine.base_url}/chat/completions", json=chat("Say hi.")) as response:
        body = await response.json()
    assert response.status == 200
    assert body["model"] == engine.model_name == "SmolLM2-135M-Instruct"
    assert body["choices"][0]["message"]["content"].strip()
    assert body["usage"]["completion_tokens"] <= 8


@pytest.mark.embedded
async def test_its_key_keeps_others_out(engine: EmbeddedEngine) -> None:
    """Other users of the machine can reach the port, but not the model."""
    async with (
        aiohttp.ClientSession() as stranger,
        stranger.post(f"{engine.base_url}/chat/completions", json=chat("Say hi.")) as response,
    ):
        assert response.status == 401


@pytest.mark.embedded
async def test_each_slot_has_the_context_asked_for(
    engine: EmbeddedEngine, client: aiohttp.ClientSession
) -> None:
    """Slots do not share one context: each can hold as many tokens as was asked."""
    async with client.get(engine.base_url.removesuffix("/v1") + "/props") as response:
        props = await response.json()
    assert props["total_slots"] == 4
    assert props["default_generation_settings"]["n_ctx"] == 1024


@pytest.mark.embedded
async def test_thinking_is_left_in_the_text(engine: EmbeddedEngine, client: aiohttp.ClientSession) -> None:
    """The engine takes no thinking apart, so that the gateway alone decides what is thinking."""
    body = chat("What is 2 + 2?", "<think>\nTwo and two.\n</think>\nIt is")
    async with client.post(f"{engine.base_url}/chat/completions", json=body) as response:
        message = (await response.json())["choices"][0]["message"]
    assert message["content"].startswith("<think>\nTwo and two.\n</think>\nIt is")
    assert "reasoning_content" not in message


@pytest.mark.embedded
async def test_hanging_up_frees_the_slot(engine: EmbeddedEngine, client: aiohttp.ClientSession) -> None:
    """A streamed generation ends when its client goes, long before its limit."""
    body = chat("Tell me a long story.", stream=True, max_tokens=900, ignore_eos=True)
    metrics = engine.base_url.removesuffix("/v1") + "/metrics"

    async def metric(name: str) -> float:
        async with client.get(metrics) as response:
            lines = (await response.text()).splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith(f"llamacpp:{name} ")))

    before = await metric("tokens_predicted_total")
    async with client.post(f"{engine.base_url}/chat/completions", json=body) as response:
        await response.content.readline()
        assert await metric("requests_processing") == 1
        response.close()
    async with asyncio.timeout(30):
        while await metric("requests_processing"):
            pass
    assert await metric("tokens_predicted_total") - before < 900


@pytest.mark.embedded
async def test_starting_twice_starts_once_and_a_crash_is_mended(engine: EmbeddedEngine) -> None:
    """`start` leaves a running engine alone, and brings a dead one back at the address it had."""
    async with EmbeddedEngine(SMALL) as own:
        first = own.pid
        assert first is not None
        await own.start()
        assert own.pid == first
        address = own.base_url
        os.kill(first, signal.SIGKILL)
        await own.wait()
        assert own.pid is None
        await own.start()
        assert own.pid not in (None, first)
        assert own.base_url == address
        assert own.base_url != engine.base_url
    assert own.pid is None
    await refused(address)


@pytest.mark.embedded
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
async def test_it_ends_with_its_parent(sign: signal.Signals) -> None:
    """Whoever started the engine may die in any way: nothing stays behind."""
    program = (
        "import asyncio\n"
        "from gateway.upstreams.embedded.engine import EmbeddedEngine, EmbeddedOptions\n"
        "async def main():\n"
        "    async with EmbeddedEngine(EmbeddedOptions(slots=1, context=256)) as engine:\n"
        "        print(engine.base_url, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    root = Path(local.__file__).parents[4]
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, cwd=root, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    address = (await parent.stdout.readline()).decode().strip()
    assert address.startswith("http://127.0.0.1:")
    parent.send_signal(sign)
    await parent.wait()
    await refused(address)


@pytest.mark.embedded
async def test_a_file_cut_short_is_one_sentence(engine: EmbeddedEngine, tmp_path: Path) -> None:
    """A GGUF file that llama.cpp can't load ends the start, with the engine's own complaint."""
    cut = tmp_path / "cut.gguf"
    with ensure_model().open("rb") as whole:
        cut.write_bytes(whole.read(100_000))
    with pytest.raises(
        EngineFailed, match=rf"^The embedded engine could not start with {cut}: .*[Ff]ailed to .*\.$"
    ):
        await EmbeddedEngine(EmbeddedOptions(cut)).start()


async def test_a_missing_adapter_is_named(tmp_path: Path) -> None:
    """Before anything is fetched or started."""
    lora = tmp_path / "adapter.gguf"
    with pytest.raises(
        ModelUnavailable, match=rf"^The adapter {lora} can't be read: No such file or directory\.$"
    ):
        await EmbeddedEngine(EmbeddedOptions(slots=1, context=256, loras=(lora,))).start()


async def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    """Adapters are asked for by their files' names, so these must differ, the base model's among them."""
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
        for name in ("taught.gguf", "SmolLM2-135M-Instruct.gguf"):
            (folder / name).write_bytes(b"GGUF")
    twice = tuple(folder / "taught.gguf" for folder in folders)
    for loras in (twice, (folders[0] / "SmolLM2-135M-Instruct.gguf",)):
        with pytest.raises(ModelUnavailable, match=rf"^The adapter {loras[-1]} has the name of another"):
            await EmbeddedEngine(EmbeddedOptions(loras=loras)).start()


@pytest.mark.embedded
async def test_a_model_is_no_adapter(engine: EmbeddedEngine) -> None:
    """What llama.cpp has against an adapter is what the message says."""
    with pytest.raises(EngineFailed, match=r"expect general\.type to be 'adapter'"):
        await EmbeddedEngine(EmbeddedOptions(slots=1, context=256, loras=(ensure_model(),))).start()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "can't be read: No such file or directory"), (b"PK", "is not a GGUF file")],
)
async def test_a_wrong_file_is_one_sentence(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    """A model file that isn't there or is something else is named."""
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelUnavailable, match=rf"^The model {path} {complaint}\.$"):
        await EmbeddedEngine(EmbeddedOptions(path)).start()


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        # -S: without site-packages, as on a machine where the extra is not installed
        ((sys.executable, "-S", "-P", SERVER), r"is not installed; run: pip install 'thinkgate\[local\]'\.$"),
        ((sys.executable, "-c", "import os; os.kill(os.getpid(), 4)"), "it ended with signal SIGILL"),
        ((sys.executable, "-c", "raise SystemExit('no way')"), r"it ended with status 1 \(no way\)\.$"),
    ],
)
async def test_an_engine_that_cannot_run_is_one_sentence(
    tmp_path: Path, command: tuple[str, ...], complaint: str
) -> None:
    """Not installed, killed by too old a processor, or dead for its own reasons: the message says which."""
    model = tmp_path / "model.gguf"
    model.write_bytes(b"GGUF")
    engine = EmbeddedEngine(EmbeddedOptions(model), command)
    with pytest.raises(EngineFailed, match=complaint):
        await engine.start()
    assert engine.pid is None


def test_threads_wait_patiently_unless_the_operator_says_otherwise() -> None:
    """The engine's threads sleep soon at a barrier; a setting of the operator's own stays."""
    assert with_sleeping_threads({"A": "b"}) == {"A": "b", "GOMP_SPINCOUNT": "1000"}
    assert with_sleeping_threads({"GOMP_SPINCOUNT": "7"}) == {"GOMP_SPINCOUNT": "7"}
    assert with_sleeping_threads({"OMP_WAIT_POLICY": "active"}) == {"OMP_WAIT_POLICY": "active"}


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000", None), ("200000 100000", 2), ("50000 100000", 1), ("x", None)]
)
def test_a_containers_quota_bounds_the_threads(tmp_path: Path, text: str, cores: int | None) -> None:
    """A container that may use two cores of many gets two threads."""
    (tmp_path / "cpu.max").write_text(text + "\n")
    assert cpu_quota(tmp_path / "cpu.max") == cores
    assert cpu_quota(tmp_path / "absent") is None
