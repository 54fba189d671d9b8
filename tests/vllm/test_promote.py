"""Promotion publishes a LoRA adapter on the running vLLM: load, compare, move the alias, roll back."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from gateway.app import create_app
from gateway.config import Settings
from tests.serving import serving_in_thread
from tests.vllm.server import MODEL, VllmServer, serve
from training.promotion.command import main

QUESTIONS = 12


@pytest.fixture(scope="module")
def adapters(vllm_python: str, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build two LoRAs: `same` changes no reply, `spoilt` changes all."""
    directory = tmp_path_factory.mktemp("adapters")
    script = Path(__file__).with_name("tiny_adapter.py")
    for name, size in (("same", "0"), ("spoilt", "3")):
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        command = [vllm_python, str(script), str(tiny_model), str(directory / name), size]
        subprocess.run(command, env=environment, check=True)
    return directory


@pytest.fixture(scope="module")
def lora_server(
    vllm_python: str, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VllmServer]:
    """Start a vLLM that loads adapters at run time."""
    log = tmp_path_factory.mktemp("lora") / "vllm.log"
    with serve(vllm_python, tiny_model, log, ("--enable-lora", "--max-lora-rank", "8")) as server:
        yield server


@contextmanager
def users(url: str) -> Iterator[None]:
    """Send one request after another, until the block ends."""
    over = threading.Event()

    def ask() -> None:
        turn = 0
        with httpx.Client(base_url=url, timeout=60) as client:
            while not over.is_set():
                turn += 1
                body = {
                    "model": "best",
                    "messages": [{"role": "user", "content": str(turn)}],
                    "max_tokens": 4,
                }
                client.post("/v1/chat/completions", json=body).raise_for_status()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_an_adapter_is_promoted_and_rolled_back(
    lora_server: VllmServer, adapters: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`spoilt` fails the comparison, `same` passes it and takes over, and rollback restores the base."""
    aliases, data = tmp_path / "aliases.toml", tmp_path / "sums.jsonl"
    aliases.write_text(f'best = [{{model = "{MODEL}"}}]\n')
    rows = [{"question": f"{i} + {7 - i}?", "answer": "7"} for i in range(QUESTIONS)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = Settings.model_validate({"upstream": f"{lora_server.base_url}/v1", "aliases": aliases})
    with serving_in_thread(create_app(settings)) as url:
        addresses = ["--url", f"{url}/v1", "--aliases", str(aliases), "--engine", lora_server.base_url]
        comparison = ["--alias", "best", "--trained", str(data), "--gain", "-1", "--max-tokens", "200"]
        rollout = ["--steps", "50,100", "--watch", "0.2", "--poll", "0.2", "--requests", "3", "--slower", "9"]

        def promote(name: str) -> int:
            own = [name, "--no-untouched", "--adapter", str(adapters / name), "--out", str(tmp_path / name)]
            return main([*own, *addresses, *comparison, *rollout])

        def target() -> list[str]:
            targets = httpx.get(f"{url}/v1/models/best").json()["targets"]
            return [target["model"] for target in targets if target["share"]]

        with users(url):
            assert promote("spoilt") == 3
            assert target() == [MODEL]
            assert promote("same") == 0
        assert target() == ["same"]
        served = {model["id"] for model in httpx.get(f"{url}/v1/models").json()["data"]}
        assert {MODEL, "spoilt", "same", "best"} <= served
        ask = {"model": "best", "messages": [{"role": "user", "content": "2 + 5?"}], "max_tokens": 4}
        reply = httpx.post(f"{url}/v1/chat/completions", json=ask, timeout=60).json()
        assert (reply["model"], reply["scaling"]["alias"]["target"]) == ("same", "same")
        assert reply["scaling"]["budget"]["family"] is not None
        assert main(["--rollback", *addresses[:4], "--out", str(tmp_path / "same")]) == 0
        assert target() == [MODEL]
    assert "same 100.0%" not in capsys.readouterr().err
