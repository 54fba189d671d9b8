"""A trained classifier as scorer: behind the real vLLM, and in the gateway's own process."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Settings
from gateway.election import Jury
from gateway.scoring import Scoring
from scorers.calibration import Calibration, read_calibration
from scorers.trained import Case, ServedClassifier
from scorers.types import Sample
from tests.fakes import ScriptedBackend, job_for, ran, says
from tests.scorers.models import nobody
from tests.vllm.server import VllmServer, serve

ROOT = Path(__file__).parents[2]
TEMPLATE = "{question} {answer}"
ASKED = "3 + 4 ="
ANSWERS = [str(number) for number in range(19)]
TEXTS = [*(f"{ASKED} {answer}" for answer in ANSWERS), "9 + 9 = 18 = 9 + 9", "Why ?"]
"""Of different lengths, so that a batch needs padding."""
TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-3}


@pytest.fixture(scope="module")
def classifier_model(vllm_python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the classifier of `tiny_classifier.py`."""
    directory = tmp_path_factory.mktemp("classifier") / "sums"
    script = ROOT / "tests" / "vllm" / "tiny_classifier.py"
    made = run_there(vllm_python, script, directory)
    assert json.loads(made)["auc"] > 0.9
    return directory


@pytest.fixture(scope="module")
def expected(vllm_python: str, classifier_model: Path) -> Mapping[str, list[float]]:
    """What Hugging Face's code says of `TEXTS`, and what the embedded classifier does."""
    script = ROOT / "tests" / "vllm" / "classifier_probe.py"
    told: Mapping[str, list[float]] = json.loads(
        run_there(vllm_python, script, classifier_model, stdin=json.dumps(TEXTS))
    )
    return told


@pytest.fixture(scope="module", params=list(TOLERANCE))
def pooling_server(
    request: pytest.FixtureRequest,
    vllm_python: str,
    classifier_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, VllmServer]]:
    """A vLLM that serves the classifier in each precision."""
    log = tmp_path_factory.mktemp("pooling") / "vllm.log"
    options = ("--runner", "pooling", "--dtype", request.param, "--max-model-len", "512")
    with serve(vllm_python, classifier_model, log, options) as server:
        yield request.param, server


def run_there(python: str, script: Path, directory: Path, stdin: str | None = None) -> str:
    """The last line that a script prints in vLLM's environment."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, script, directory], env=environment, input=stdin, capture_output=True, text=True, check=True
    )
    return done.stdout.strip().splitlines()[-1]


def scoring_for(server: VllmServer, **more: Any) -> Scoring:
    """Scorers as a settings file would have them."""
    table = {
        "kind": "trained",
        "url": server.base_url,
        "model": server.model,
        "template": TEMPLATE,
        "unproven": True,
        **more,
    }
    return Scoring(Settings.model_validate({"scorers": {"rm": table}}).scorers)


def test_the_embedded_classifier_gives_hugging_faces_values(expected: Mapping[str, list[float]]) -> None:
    """Padding and batches make no difference."""
    assert expected["embedded"] == pytest.approx(expected["float32"], abs=1e-4)
    right = max(range(19), key=lambda number: expected["embedded"][number])
    assert right == 7


async def test_vllm_gives_hugging_faces_values(
    pooling_server: tuple[str, VllmServer], expected: Mapping[str, list[float]]
) -> None:
    """The served classifier says what the model's own code says, in batches smaller than asked for."""
    precision, server = pooling_server
    scoring = scoring_for(server)
    rm: Any = scoring.scorers["rm"]
    assert isinstance(rm.classifier, ServedClassifier)
    try:
        bare = ServedClassifier(
            server.base_url, rm.classifier.post, server.model, template="{answer}", batch=8
        )
        values, tokens = await bare.classify([Case("", text) for text in TEXTS])
    finally:
        await scoring.close()
    assert values == pytest.approx(expected[precision], abs=TOLERANCE[precision])
    assert tokens == sum(len(text.split()) for text in TEXTS)


async def test_a_vote_is_weighed_by_the_served_classifier(
    pooling_server: tuple[str, VllmServer], classifier_model: Path
) -> None:
    """One right sample outweighs two that agree on a wrong answer; its tokens are told apart."""
    _, server = pooling_server
    scoring = scoring_for(server, calibration=classifier_model / "calibration.json")
    job = job_for(
        messages=[{"role": "user", "content": ASKED}],
        scaling={"samples": 3, "stop": "none", "vote": "weighted"},
    )
    job = replace(job, budget=replace(job.budget, scorer="rm"))
    backend = ScriptedBackend(says(ANSWERS[12]), says(ANSWERS[12]), says(ANSWERS[7]))
    try:
        _, outcome = await ran(backend, job, Jury(scorers=scoring.scorers))
    finally:
        await scoring.close()
    assert outcome.chosen[0].content == ANSWERS[7]
    assert outcome.scorer_tokens == 3 * len(TEXTS[0].split())
    assert read_calibration(classifier_model / "calibration.json") != Calibration()


async def test_pairs_are_scored_too(pooling_server: tuple[str, VllmServer]) -> None:
    """`/score` takes question and reply apart, and one label serves it as well."""
    _, server = pooling_server
    scoring = scoring_for(server, endpoint="score")
    try:
        weights = await scoring.scorers["rm"].score(
            [{"role": "user", "content": ASKED}],
            [Sample(i, text) for i, text in enumerate(ANSWERS)],
            nobody(),
        )
    finally:
        await scoring.close()
    assert all(weight is not None and 0 <= weight <= 1 for weight in weights)
