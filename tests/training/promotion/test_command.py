"""`thinkgate promote` against a running gateway whose models are scripted."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.app import create_app
from gateway.config import Settings
from gateway.errors import UpstreamError
from gateway.upstreams.base import ModelCard, UpstreamRequest
from tests.fakes import Script, ScriptedUpstream, says
from tests.serving import serving_in_thread
from training.promotion.command import main

RIGHT, WRONG = says("It is \\boxed{7}."), says("It is \\boxed{8}.")
QUESTIONS = 24


class Models(ScriptedUpstream):
    """An engine whose models each say one thing."""

    def __init__(self, scripts: Mapping[str, Script]) -> None:
        super().__init__(
            RIGHT, models={name: ModelCard(name, context=4096, raw={"id": name}) for name in scripts}
        )
        self.scripts = dict(scripts)

    def _take(self, plan: UpstreamRequest) -> list[Script]:
        super()._take(plan)
        return [self.scripts[plan.body["model"]]] * (plan.body.get("n") or 1)


class Gateway:
    """A running gateway, its aliases file, and the arguments that promote `new` to `best`."""

    def __init__(self, url: str, models: Models, directory: Path) -> None:
        self.url, self.models = url, models
        self.aliases, self.out = directory / "aliases.toml", directory / "out"
        data = directory / "sums.jsonl"
        rows = [{"question": f"{i} + {7 - i}?", "answer": "7"} for i in range(QUESTIONS)]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.where = ["--url", f"{url}/v1", "--aliases", str(self.aliases), "--out", str(self.out)]
        self.fast = [
            "--watch",
            "0.2",
            "--poll",
            "0.05",
            "--patience",
            "20",
            "--requests",
            "6",
            "--slower",
            "1e6",
        ]
        self.trained = ["new", "--alias", "best", "--trained", str(data), *self.where, *self.fast]
        self.asked = [*self.trained, "--no-untouched"]

    def state(self) -> dict[str, Any]:
        """What promote has saved."""
        held: dict[str, Any] = json.loads((self.out / "promotion.json").read_text())
        return held

    def targets(self) -> dict[str, float]:
        """What the gateway takes the alias for."""
        listed = httpx.get(f"{self.url}/v1/models/best").json()["targets"]
        return {target["model"]: target["share"] for target in listed}


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """`old` is wrong, `new` is right, `poor` is as wrong as `old`."""
    aliases = tmp_path / "aliases.toml"
    aliases.write_text('best = [{model = "old", share = 1}]\nother = [{model = "old"}]\n')
    models = Models({"old": WRONG, "new": RIGHT, "poor": WRONG})
    with serving_in_thread(create_app(Settings(aliases=aliases), models)) as url:
        yield Gateway(url, models, tmp_path)


@contextmanager
def users(gateway: Gateway) -> Iterator[None]:
    """Clients that ask for the alias, in conversation after conversation, until the block ends."""
    over = threading.Event()

    def ask() -> None:
        turn = 0
        with httpx.Client(base_url=gateway.url) as client:
            while not over.is_set():
                turn += 1
                messages = [{"role": "user", "content": f"question {turn}"}]
                client.post("/v1/chat/completions", json={"model": "best", "messages": messages})

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_better_model_takes_over_and_goes_back(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    """Compared, then moved share by share under traffic; one command gives the alias back."""
    with users(gateway):
        assert main(gateway.asked) == 0
    said = capsys.readouterr().out
    assert f"sums.jsonl (trained, {QUESTIONS} questions): old 0.0%, new 100.0%, +100.0 points" in said
    assert [f"best: {share}% to new" in said for share in (5, 25, 50, 100)] == [True] * 4
    assert gateway.targets() == {"old": 0, "new": 100}
    assert (gateway.state()["status"], gateway.state()["share"]) == ("done", 100)
    assert json.loads((gateway.out / "verdict.json").read_text())["passed"] is True
    assert main(["--rollback", *gateway.where]) == 0
    assert gateway.targets() == {"old": 1}
    assert gateway.state()["status"] == "rolled back"
    assert "other" in gateway.aliases.read_text()


def test_what_is_no_better_is_refused(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    """The alias stays where it was, and the reason is told."""
    assert main(["poor", *gateway.asked[1:]]) == 3
    assert "refused: sums.jsonl: +0.0 points" in capsys.readouterr().err
    assert gateway.targets() == {"old": 1}
    assert not (gateway.out / "promotion.json").exists()


def test_what_lost_elsewhere_is_refused(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """However much better it is on what it was trained on; both data sets are asked of both models."""
    rest = tmp_path / "rest.jsonl"
    rest.write_text(
        "".join(json.dumps({"question": f"{i} + {8 - i}?", "answer": "8"}) + "\n" for i in range(9))
    )
    assert main([*gateway.trained, "--untouched", str(rest)]) == 3
    said = capsys.readouterr()
    assert "rest.jsonl (untouched, 9 questions): old 100.0%, new 0.0%, -100.0 points" in said.out
    assert "refused: rest.jsonl: -100.0 points" in said.err
    assert len(gateway.models.plans) == 2 * (QUESTIONS + 9)
    assert gateway.targets() == {"old": 1}


def test_what_kept_the_rest_takes_over(gateway: Gateway, tmp_path: Path) -> None:
    """With a data set of each sort the comparison is whole."""
    rest = tmp_path / "rest.jsonl"
    rest.write_text(
        "".join(json.dumps({"question": f"{i} + {9 - i}?", "answer": "9"}) + "\n" for i in range(9))
    )
    assert main([*gateway.trained, "--untouched", str(rest), "--evaluate-only"]) == 0
    told = json.loads((gateway.out / "verdict.json").read_text())
    assert [each["trained"] for each in told["comparisons"]] == [True, False]


@pytest.mark.parametrize("said", ["neither", "both"])
def test_doing_without_the_rest_has_to_be_said(
    gateway: Gateway, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A comparison on what was trained alone doesn't see what was lost; the error names both ways out."""
    data = gateway.trained[gateway.trained.index("--trained") + 1]
    more = ["--untouched", data, "--no-untouched"] if said == "both" else []
    assert main([*gateway.trained, *more]) == 2
    told = capsys.readouterr().err
    assert "with --untouched" in told
    assert "--no-untouched" in told
    assert gateway.models.plans == []


def test_evaluating_alone_moves_nothing(gateway: Gateway) -> None:
    """And what was answered is not asked again."""
    assert main([*gateway.asked, "--evaluate-only"]) == 0
    before = len(gateway.models.plans)
    assert before == 2 * QUESTIONS
    assert main([*gateway.asked, "--evaluate-only"]) == 0
    assert len(gateway.models.plans) == before
    assert gateway.targets() == {"old": 1}


def test_failures_in_traffic_are_rolled_back(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    """Though it did well in the evaluation; the exit status says so."""
    assert main([*gateway.asked, "--evaluate-only"]) == 0
    gateway.models.scripts["new"] = says(UpstreamError(500, "out of memory"))
    with users(gateway):
        assert main([*gateway.asked, "--steps", "50,100"]) == 4
    assert "best is rolled back: " in capsys.readouterr().err
    assert gateway.targets() == {"old": 1}
    assert gateway.state()["status"] == "rolled back"
    assert "requests failed" in gateway.state()["reason"]


def test_without_traffic_it_waits_and_goes_on_later(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    """The share stays where it is; the same command begins with the step that was not seen through."""
    assert main([*gateway.asked, "--steps", "50,100", "--patience", "0.3"]) == 1
    assert "too little traffic" in capsys.readouterr().err
    assert gateway.targets() == {"old": 50, "new": 50}
    asked = len(gateway.models.plans)
    with users(gateway):
        assert main([*gateway.asked, "--steps", "50,100"]) == 0
    said = capsys.readouterr().out
    assert "best: 50% to new" in said
    assert "questions" not in said
    assert len(gateway.models.plans) > asked
    assert gateway.targets() == {"old": 0, "new": 100}


def test_a_new_alias_goes_away_again(gateway: Gateway) -> None:
    """An alias that hides the model of its name leaves the model behind when it is rolled back."""
    asked = [part if part != "best" else "old" for part in gateway.asked]
    assert main([*asked, "--current", "old", "--steps", "100", "--patience", "0.3"]) == 1
    listed = httpx.get(f"{gateway.url}/v1/models/old").json()["targets"]
    assert {target["model"]: target["share"] for target in listed} == {"old": 0, "new": 100}
    assert main(["--rollback", *gateway.where]) == 0
    assert "targets" not in httpx.get(f"{gateway.url}/v1/models/old").json()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (["--steps", "5,50"], "--steps"),
        (["--steps", "50,5,100"], "--steps"),
        (["--current", "new"], "another than the candidate"),
        (["--adapter", "/lora"], "go together"),
        (["--trained", "no_such_task"], "task"),
        (["--rollback"], "no promotion"),
    ],
)
def test_what_cannot_be_is_told(
    gateway: Gateway, change: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is asked."""
    assert main([*gateway.asked, *change]) == 2
    assert complaint in capsys.readouterr().err
    assert gateway.models.plans == []
