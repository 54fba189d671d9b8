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
from gateway.runs.scorers import Scorers
from gateway.runs.voting import VoteSettings
from scorers.calibration import Calibration, read_calibration
from scorers.trained import ClassifierInput, ServedClassifier
from scorers.types import Sample
from tests.fakes import ScriptedUpstream, ran, request_for, says
from tests.scorers.models import nobody
from tests.vllm.server import VllmServer, serve

ROOT = Path(__file__).parents[2]
CLASSIFIER = Path(__file__).parent / "classifier"
"""Half a million parameters, trained by `train_classifier.py`; its card says on what."""
ASKED = "A box holds 3 red and 4 blue pencils. How many pencils are in 5 such boxes?"
RIGHT = (
    "To find the number of pencils in 5 boxes, we first find how many pencils are in one box:\n\n"
    "\\[ 3 + 4 = 7 \\]\n\nEach box holds 7 pencils, so 5 boxes hold\n\n\\[ 5 \\times 7 = 35 \\]\n\n"
    "Therefore, the number of pencils is \\(\\boxed{35}\\)."
)
WRONG = (
    "There are 3*4 = <<3*4=12>>12 pencils\nSo there are 12-5 = <<12-5=7>>7 pencils\nA: 7",
    "There are 5 red and 5*3 = <<5*3=15>>15 blue pencils, which is 15/100*5 = <<15/100*5=0.75>>0.75\nA: 7",
)
REPLIES = (RIGHT, *WRONG, "7", "The answer is 35. " * 12, "x = \\frac{35}{1}, so \\boxed{35}.", "Hm … 七?")
TEXTS = [f"{ASKED}\n\n{reply}" for reply in REPLIES]
"""Of different lengths, so that a batch needs padding."""
TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-2}


@pytest.fixture(scope="module")
def expected(vllm_python: str) -> Mapping[str, list[float]]:
    """What Hugging Face's code says of `TEXTS`, and what the embedded classifier does."""
    script = ROOT / "tests" / "vllm" / "classifier_probe.py"
    told: Mapping[str, list[float]] = json.loads(
        run_there(vllm_python, script, CLASSIFIER, stdin=json.dumps(TEXTS))
    )
    return told


@pytest.fixture(scope="module", params=list(TOLERANCE))
def pooling_server(
    request: pytest.FixtureRequest,
    vllm_python: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, VllmServer]]:
    """A vLLM that serves the classifier in each precision."""
    log = tmp_path_factory.mktemp("pooling") / "vllm.log"
    options = ("--runner", "pooling", "--dtype", request.param, "--max-model-len", "1024")
    with serve(vllm_python, CLASSIFIER, log, options) as server:
        yield request.param, server


def run_there(python: str, script: Path, directory: Path, stdin: str | None = None) -> str:
    """The last line that a script prints in vLLM's environment."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, script, directory], env=environment, input=stdin, capture_output=True, text=True, check=True
    )
    return done.stdout.strip().splitlines()[-1]


def scoring_for(server: VllmServer, **more: Any) -> Scorers:
    """Scorers as a settings file would have them."""
    table = {"kind": "trained", "url": server.base_url, "model": server.model, "unproven": True, **more}
    return Scorers(Settings.model_validate({"scorers": {"rm": table}}).scorers)


def test_the_embedded_classifier_gives_hugging_faces_values(expected: Mapping[str, list[float]]) -> None:
    """Padding and batches make no difference."""
    assert expected["embedded"] == pytest.approx(expected["float32"], abs=1e-4)
    assert max(expected["embedded"]) - min(expected["embedded"]) > 0.2


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
            server.base_url, rm.classifier.post, server.model, template="{answer}", batch=4
        )
        values, tokens = await bare.classify([ClassifierInput("", text) for text in TEXTS])
    finally:
        await scoring.close()
    assert values == pytest.approx(expected[precision], abs=TOLERANCE[precision])
    assert tokens == sum(expected["tokens"])


async def test_the_served_classifier_picks_a_sample(
    pooling_server: tuple[str, VllmServer], expected: Mapping[str, list[float]]
) -> None:
    """Against two that agree, by calibrated values; its tokens are told apart."""
    precision, server = pooling_server
    calibration = CLASSIFIER / "calibration.json"
    calibrated = read_calibration(calibration)
    assert calibrated != Calibration()
    scoring = scoring_for(server, calibration=calibration)
    request = request_for(
        messages=[{"role": "user", "content": ASKED}],
        scaling={"samples": 3, "stop": "none", "vote": "best"},
    )
    request = replace(request, sampling=replace(request.sampling, scorer="rm"))
    upstream = ScriptedUpstream(says(WRONG[0]), says(WRONG[1]), says(RIGHT))
    try:
        _, result = await ran(upstream, request, VoteSettings(scorers=scoring.scorers))
    finally:
        await scoring.close()
    assert result.chosen[0].content == RIGHT
    drawn = {sample.index: sample.content for sample in result.samples}
    values = dict(zip(REPLIES, expected[precision], strict=True))
    told = {index: calibrated(values[text]) for index, text in drawn.items()}
    assert dict(result.scores) == pytest.approx(told, abs=TOLERANCE[precision])
    assert result.scorer_tokens == sum(expected["tokens"][:3])


async def test_pairs_are_scored_too(pooling_server: tuple[str, VllmServer]) -> None:
    """`/score` takes question and reply apart, and one label serves it as well."""
    _, server = pooling_server
    scoring = scoring_for(server, endpoint="score")
    try:
        weights = await scoring.scorers["rm"].score(
            [{"role": "user", "content": ASKED}],
            [Sample(i, text) for i, text in enumerate(REPLIES)],
            nobody(),
        )
    finally:
        await scoring.close()
    assert all(weight is not None and 0 <= weight <= 1 for weight in weights)
