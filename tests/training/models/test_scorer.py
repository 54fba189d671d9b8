"""A scorer from a policy's samples to a served classifier, on a model of a few thousand weights."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from gateway.config import load_settings  # noqa: E402
from gateway.runs.scorers import JudgeTable, Scorers  # noqa: E402
from policies.limiter import share_tokens  # noqa: E402
from policies.prompts import LEVELS  # noqa: E402
from scorers.calibration import read_calibration  # noqa: E402
from scorers.gate import Check, Gate, model_digest, read_gate, write_gate  # noqa: E402
from scorers.local_classifier import LocalClassifier  # noqa: E402
from scorers.trained import ClassifierInput  # noqa: E402
from tests.training.models.small import card, configured  # noqa: E402
from training.config import parse_config  # noqa: E402
from training.data.problems import DataError  # noqa: E402
from training.scorer.samples import read_labelled  # noqa: E402
from training.stages import run_stage  # noqa: E402
from training.stages.stage import Run  # noqa: E402
from training.stages.train_scorer import train_scorer  # noqa: E402
from training.stages.trained_scorer import load_scorer  # noqa: E402
from training.types import Completion, Problem  # noqa: E402

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("default")]  # the libraries warn of each other

STEPS = {"max_steps": 2, "eval_steps": 2, "save_steps": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a run that made all tries with a policy that solves a few problems."""
    directory = tmp_path_factory.mktemp("run")
    worked = {
        "max_steps": 60,
        "batch": 16,
        "problems": 60,
        "learning_rate": 5e-3,
        "eval_steps": 60,
        "budgets": {"high": 1},
    }
    policy = run_stage(configured(directory / "policy", cold_start=worked), "cold-start")
    source = {"kind": "additions", "digits": 1}
    config = parse_config(
        {
            "name": "smoke",
            "output": directory,
            "threads": 1,
            "pipeline": [],
            "model": {"path": "tiny", "family": "thinkgate"},
            "data": [source],
            "held_out": {"sources": [source], "count": 4, "max_tokens": 12},
            "scorer": {
                "policy": str(policy),
                "all_tries": True,
                "problems": 6,
                "validation": 3,
                "samples": 4,
                "budgets": {"high": 1, "none": 1},
                "classifier": {"max_steps": 3, "batch": 4, "eval_steps": 2, "warmup_steps": 1},
                "checks": {**STEPS, "batch": 4, "problems": 12},
                "judge": {
                    **STEPS,
                    "per_device_train_batch_size": 4,
                    "groups": 2,
                    "num_generations": 2,
                    "max_completion_length": 12,
                },
            },
        }
    )
    assert train_scorer(config) == 1
    return directory / "scorer"


def test_every_try_is_reported_with_its_gate(run: Path) -> None:
    """None passes, because nothing was learned; each gate belongs to the weights beside it."""
    report = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert [attempt["name"] for attempt in report["tries"]] == [
        "generative", "classifier", "backbone", "negatives", "steps",
    ]  # fmt: skip
    for attempt in report["tries"]:
        gate = read_gate(Path(attempt["model"]) / "gate.json")
        assert not gate.passed
        assert gate.model_sha256 == model_digest(Path(attempt["model"]))
    assert len((run / "results.md").read_text(encoding="utf-8").splitlines()) == 7


def test_no_problem_is_in_two_parts(run: Path) -> None:
    """Training, calibration and the gate use different problems."""
    parts = [{labelled.problem.question for labelled in read_labelled(run / f"{name}.jsonl")}
             for name in ("train", "validation", "test")]  # fmt: skip
    assert sum(map(len, parts)) == len(set.union(*parts)) == 13


@pytest.mark.parametrize(("name", "kind"), [("generative", "judge"), ("steps", "trained")])
def test_the_gateways_settings_lie_beside_the_weights(run: Path, name: str, kind: str) -> None:
    """The gateway reads them as they are, and refuses the scorer because its gate has failed."""
    model = Path(json.loads((run / name / "result.json").read_text(encoding="utf-8"))["model"])
    settings = load_settings(model / "serving.toml", {})
    assert settings.scorers["trained"].kind == kind
    with pytest.raises(ValueError, match="did not pass"):
        Scorers(settings.scorers)


def test_a_judge_may_think_as_long_when_served_as_at_its_gate(run: Path) -> None:
    """Although the gateway reserves a part of the tokens for the answer."""
    model = Path(json.loads((run / "generative" / "result.json").read_text(encoding="utf-8"))["model"])
    settings = load_settings(model / "serving.toml", {})
    table = settings.scorers["trained"]
    assert isinstance(table, JudgeTable)
    thinking = share_tokens(LEVELS["high"].tokens or 0, settings.answer_reserve, table.max_tokens)
    assert thinking == 12


async def test_the_embedded_classifier_serves_the_trained_scorer(run: Path) -> None:
    """In the template written beside the weights, with its calibration."""
    model = run / "steps" / "model"
    template = "<|begin|><|user|>{question}<|assistant|><think>\n{reasoning}\n</think>\n\n{answer}<|end|>"
    assert json.dumps(template) in (model / "serving.toml").read_text(encoding="utf-8")
    local = LocalClassifier(model, template=template)
    (value,), tokens = await local.classify([ClassifierInput("What is 1+2?", "3", "1+2=3")])
    local.close()
    assert 0 < value < 1
    assert tokens == len("BUW1+2?ATn1+2=3nEnn3Z")  # a letter a token
    assert 0 < read_calibration(model / "calibration.json")(value) < 1


def release(made: Path, directory: Path) -> Path:
    """Copy a scorer with a gate that has passed."""
    shutil.copytree(made, directory)
    checks = (Check("within-problem AUC", 0.9, 0.75, True),)
    write_gate(directory / "gate.json", Gate(checks, "2026-01-31T12:00:00+00:00", model_digest(directory)))
    return directory


async def test_rejection_scores_as_the_served_classifier_does(run: Path, tmp_path: Path) -> None:
    """It is asked in the template written beside its weights, about thinking and answer."""
    scorer = release(run / "steps" / "model", tmp_path / "scorer")
    config = configured(tmp_path, rejection={"max_steps": 2, "scorer": scorer})
    replies = [Completion("", (1,), "1+2=3", "3", 5, True, "high"), Completion("", (2,), "", "4", 0, True)]
    with Run(config) as made:
        score = load_scorer(made.stage("rejection", config.table("rejection")), scorer)
        scores = await asyncio.to_thread(score, [Problem("a", "What is 1+2?")], [replies])
    template = "<|begin|><|user|>{question}<|assistant|><think>\n{reasoning}\n</think>\n\n{answer}<|end|>"
    local = LocalClassifier(scorer, template=template)
    served, _ = await local.classify(
        [ClassifierInput("What is 1+2?", "3", "1+2=3"), ClassifierInput("What is 1+2?", "4", "")]
    )
    local.close()
    assert scores == [served]


def test_rejection_asks_a_generative_judge(run: Path, tmp_path: Path) -> None:
    """Equal answers get equal scores; no answer gets none."""
    made = Path(json.loads((run / "generative" / "result.json").read_text(encoding="utf-8"))["model"])
    scorer = release(made, tmp_path / "scorer")
    config = configured(tmp_path, rejection={"max_steps": 2, "scorer": scorer})
    answers = [
        Completion("", (number,), "", text, 0, True) for number, text in enumerate(("3", "4", "3", ""))
    ]
    with Run(config) as started:
        ((three, four, again, none),) = load_scorer(
            started.stage("rejection", config.table("rejection")), scorer
        )([Problem("a", "What is 1+2?")], [answers])
    assert three == again
    assert {three, four} <= {0.0, 1.0, None}
    assert none is None


def test_rejection_refuses_a_scorer_that_failed_its_gate(run: Path, tmp_path: Path) -> None:
    """As serving does; the error names the setting."""
    config = configured(tmp_path, rejection={"max_steps": 2, "scorer": run / "steps" / "model"})
    with Run(config) as made, pytest.raises(DataError, match=r"rejection\.scorer: .* did not pass"):
        load_scorer(made.stage("rejection", config.table("rejection")), run / "steps" / "model")


def test_a_rejection_stage_trains_on_the_scorers_choice(run: Path, tmp_path: Path) -> None:
    """From sampling to the card, with a classifier."""
    scorer = release(run / "steps" / "model", tmp_path / "scorer")
    worked = {
        "max_steps": 60,
        "batch": 16,
        "problems": 60,
        "learning_rate": 5e-3,
        "eval_steps": 60,
        "budgets": {"high": 1},
    }
    rejection = {
        "max_steps": 2,
        "problems": 40,
        "samples": 4,
        "budgets": {"high": 1},
        "max_tokens": 12,
        "scorer": scorer,
    }
    config = configured(tmp_path, cold_start=worked, rejection=rejection)
    run_stage(config, "cold-start")
    run_stage(config, "rejection")
    assert card(config, "rejection")["kept"] > 0
