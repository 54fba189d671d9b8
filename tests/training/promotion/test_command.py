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
    """An engine whose models each have one scripted reply."""

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
        problems = [{"question": f"{i} + {7 - i}?", "answer": "7"} for i in range(QUESTIONS)]
        data.write_text("".join(json.dumps(problem) + "\n" for problem in problems))
        self.location = ["--url", f"{url}/v1", "--aliases", str(self.aliases), "--out", str(self.out)]
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
        self.trained = ["new", "--alias", "best", "--trained", str(data), *self.location, *self.fast]
        self.arguments = [*self.trained, "--no-untouched"]

    def state(self) -> dict[str, Any]:
        """Read the state that promote saved."""
        state: dict[str, Any] = json.loads((self.out / "promotion.json").read_text())
        return state

    def targets(self) -> dict[str, float]:
        """Ask the gateway for the alias's targets."""
        listed = httpx.get(f"{self.url}/v1/models/best").json()["targets"]
        return {target["model"]: target["share"] for target in listed}


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway with three models: `old` and `poor` are always wrong, `new` is always correct."""
    aliases = tmp_path / "aliases.toml"
    aliases.write_text('best = [{model = "old", share = 1}]\nother = [{model = "old"}]\n')
    models = Models({"old": WRONG, "new": RIGHT, "poor": WRONG})
    with serving_in_thread(create_app(Settings(aliases=aliases), models)) as url:
        yield Gateway(url, models, tmp_path)


@contextmanager
def users(gateway: Gateway) -> Iterator[None]:
    """Send requests for the alias, one conversation after another, until the block ends."""
    stopped = threading.Event()

    def ask() -> None:
        turn = 0
        with httpx.Client(base_url=gateway.url) as client:
            while not stopped.is_set():
                turn += 1
                messages = [{"role": "user", "content": f"question {turn}"}]
                client.post("/v1/chat/completions", json={"model": "best", "messages": messages})

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def test_a_better_model_takes_over_and_can_be_rolled_back(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    """The alias moves step by step under traffic; one command restores its targets."""
    with users(gateway):
        assert main(gateway.arguments) == 0
    output = capsys.readouterr().out
    assert f"sums.jsonl (trained, {QUESTIONS} questions): old 0.0%, new 100.0%, +100.0 points" in output
    assert [f"best: {share}% to new" in output for share in (5, 25, 50, 100)] == [True] * 4
    assert gateway.targets() == {"old": 0, "new": 100}
    assert (gateway.state()["status"], gateway.state()["share"]) == ("done", 100)
    assert json.loads((gateway.out / "verdict.json").read_text())["passed"] is True
    assert main(["--rollback", *gateway.location]) == 0
    assert gateway.targets() == {"old": 1}
    assert gateway.state()["status"] == "rolled back"
    assert "other" in gateway.aliases.read_text()


def test_a_candidate_that_is_no_better_is_refused(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    """The alias keeps its targets, and the reason is printed."""
    assert main(["poor", *gateway.arguments[1:]]) == 3
    assert "refused: sums.jsonl: +0.0 points" in capsys.readouterr().err
    assert gateway.targets() == {"old": 1}
    assert not (gateway.out / "promotion.json").exists()


def test_a_candidate_that_lost_other_abilities_is_refused(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A gain on the trained data does not help; both models answer both data sets."""
    untouched = tmp_path / "rest.jsonl"
    untouched.write_text(
        "".join(json.dumps({"question": f"{i} + {8 - i}?", "answer": "8"}) + "\n" for i in range(9))
    )
    assert main([*gateway.trained, "--untouched", str(untouched)]) == 3
    output = capsys.readouterr()
    assert "rest.jsonl (untouched, 9 questions): old 100.0%, new 0.0%, -100.0 points" in output.out
    assert "refused: rest.jsonl: -100.0 points" in output.err
    assert len(gateway.models.plans) == 2 * (QUESTIONS + 9)
    assert gateway.targets() == {"old": 1}


def test_a_candidate_that_kept_other_abilities_passes(gateway: Gateway, tmp_path: Path) -> None:
    """The comparison covers a data set of each kind."""
    untouched = tmp_path / "rest.jsonl"
    untouched.write_text(
        "".join(json.dumps({"question": f"{i} + {9 - i}?", "answer": "9"}) + "\n" for i in range(9))
    )
    assert main([*gateway.trained, "--untouched", str(untouched), "--evaluate-only"]) == 0
    verdict = json.loads((gateway.out / "verdict.json").read_text())
    assert [comparison["trained"] for comparison in verdict["comparisons"]] == [True, False]


@pytest.mark.parametrize("given", ["neither", "both"])
def test_untouched_data_is_skipped_only_explicitly(
    gateway: Gateway, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exactly one of --untouched and --no-untouched is required; the error names both."""
    data = gateway.trained[gateway.trained.index("--trained") + 1]
    more = ["--untouched", data, "--no-untouched"] if given == "both" else []
    assert main([*gateway.trained, *more]) == 2
    errors = capsys.readouterr().err
    assert "with --untouched" in errors
    assert "--no-untouched" in errors
    assert gateway.models.plans == []


def test_evaluate_only_shifts_no_traffic(gateway: Gateway) -> None:
    """A second run asks nothing again."""
    assert main([*gateway.arguments, "--evaluate-only"]) == 0
    before = len(gateway.models.plans)
    assert before == 2 * QUESTIONS
    assert main([*gateway.arguments, "--evaluate-only"]) == 0
    assert len(gateway.models.plans) == before
    assert gateway.targets() == {"old": 1}


def test_failures_in_traffic_are_rolled_back(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    """A good evaluation does not help; the exit status is 4."""
    assert main([*gateway.arguments, "--evaluate-only"]) == 0
    gateway.models.scripts["new"] = says(UpstreamError(500, "out of memory"))
    with users(gateway):
        assert main([*gateway.arguments, "--steps", "50,100"]) == 4
    assert "best is rolled back: " in capsys.readouterr().err
    assert gateway.targets() == {"old": 1}
    assert gateway.state()["status"] == "rolled back"
    assert "requests failed" in gateway.state()["reason"]


def test_without_traffic_it_waits_and_resumes_later(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    """The share stays; the same command starts again with the unfinished step."""
    assert main([*gateway.arguments, "--steps", "50,100", "--patience", "0.3"]) == 1
    assert "too little traffic" in capsys.readouterr().err
    assert gateway.targets() == {"old": 50, "new": 50}
    requests = len(gateway.models.plans)
    with users(gateway):
        assert main([*gateway.arguments, "--steps", "50,100"]) == 0
    output = capsys.readouterr().out
    assert "best: 50% to new" in output
    assert "questions" not in output
    assert len(gateway.models.plans) > requests
    assert gateway.targets() == {"old": 0, "new": 100}


def test_rollback_removes_a_new_alias(gateway: Gateway) -> None:
    """An alias may hide a model of the same name; after the rollback that model is visible again."""
    arguments = [part if part != "best" else "old" for part in gateway.arguments]
    assert main([*arguments, "--current", "old", "--steps", "100", "--patience", "0.3"]) == 1
    listed = httpx.get(f"{gateway.url}/v1/models/old").json()["targets"]
    assert {target["model"]: target["share"] for target in listed} == {"old": 0, "new": 100}
    assert main(["--rollback", *gateway.location]) == 0
    assert "targets" not in httpx.get(f"{gateway.url}/v1/models/old").json()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (["--steps", "5,50"], "--steps"),
        (["--steps", "50,5,100"], "--steps"),
        (["--current", "new"], "can't be the candidate"),
        (["--adapter", "/lora"], "need each other"),
        (["--trained", "no_such_task"], "task"),
        (["--rollback"], "no promotion"),
    ],
)
def test_unusable_arguments_are_refused(
    gateway: Gateway, change: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The status is 2, and no model is asked."""
    assert main([*gateway.arguments, *change]) == 2
    assert complaint in capsys.readouterr().err
    assert gateway.models.plans == []
