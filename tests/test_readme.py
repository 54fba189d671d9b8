"""The README's one request works, whichever of its sections started the gateway."""

import re
import shlex
from pathlib import Path

import httpx
import yaml

from gateway.app import create_app
from gateway.config import Settings
from tests.fakes import ScriptedUpstream, says

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCES = re.findall(r"^```\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def curl() -> list[str]:
    """The README's only curl, as the shell splits it."""
    (command,) = (fence for fence in FENCES if "curl" in fence)
    return shlex.split(command)


def test_the_request_goes_where_every_section_serves() -> None:
    """Its address is the default one, no section names another port, and compose publishes the same."""
    defaults = Settings()
    address = f"{defaults.host}:{defaults.port}"
    assert curl()[1] == f"http://{address}/v1/chat/completions"
    assert not any("--port" in fence for fence in FENCES)
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    assert {port for service in compose["services"].values() for port in service.get("ports", [])} == {
        f"${{THINKGATE_ADDRESS:-{address}}}:{defaults.port}"
    }


async def test_the_request_works_for_whatever_model_is_served() -> None:
    """It names no model, and a gateway with one model answers it by a vote."""
    words = curl()
    headers = dict(words[i + 1].split(": ", 1) for i, word in enumerate(words) if word == "-H")
    body = words[words.index("-d") + 1]
    upstream = ScriptedUpstream(*[says("The answer is 32.")] * 8)
    transport = httpx.ASGITransport(create_app(Settings(), upstream))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        reply = await client.post("/v1/chat/completions", content=body, headers=headers)
    assert reply.status_code == 200, reply.text
    assert reply.json()["scaling"]["vote"]["groups"][0]["answer"] == "32"
