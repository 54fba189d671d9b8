"""Trained classifiers as scorers, from a server and calibrated; the real models are in tests/vllm."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorers.calibration import Calibration, fit_calibration, logistic, logit, read_calibration
from scorers.local_classifier import LocalClassifier
from scorers.trained import ClassifierInput, ServedClassifier, TrainedScorer, fill_template
from scorers.types import Sample, ScorerError
from tests.scorers.models import nobody

ASKED = [{"role": "user", "content": "What is 3 + 4?"}]


class Server:
    """A server that scores a text by whether it is over 100 characters; it records its requests."""

    def __init__(self, **reply: Any) -> None:
        self.sent: list[tuple[str, Mapping[str, Any], Mapping[str, str]]] = []
        self._reply = reply

    async def post(self, url: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Mapping[str, Any]:
        """See `scorers.trained.Post`."""
        self.sent.append((url, body, headers))
        texts = body.get("input") or body["text_2"]
        score = url.endswith("/score")
        data = [
            {"index": i, "score": len(text) / 100}
            if score
            else {"index": i, "probs": [1 - len(text) / 100, len(text) / 100]}
            for i, text in enumerate(texts)
        ]
        return {"data": data[::-1], "usage": {"total_tokens": 10}, **self._reply}


async def test_texts_are_classified_in_batches() -> None:
    """The template makes the texts, the values come back in the samples' order, and the tokens count."""
    server, model = Server(), nobody()
    classifier = ServedClassifier("http://s/", server.post, "rm", "key", template="{answer}", batch=2)
    samples = [Sample(0, "four"), Sample(1, " "), Sample(2, "sevens!"), Sample(3, "one")]
    weights = await TrainedScorer(classifier).score(ASKED, samples, model)
    assert weights == [0.04, None, 0.07, 0.03]
    assert [(url, body["input"]) for url, body, _ in server.sent] == [
        ("http://s/classify", ["four", "sevens!"]),
        ("http://s/classify", ["one"]),
    ]
    assert server.sent[0][1]["model"] == "rm"
    assert server.sent[0][2] == {"Authorization": "Bearer key"}
    assert model.tokens == 20


async def test_pairs_are_scored() -> None:
    """`/score` gets the question and the reply apart."""
    server = Server()
    classifier = ServedClassifier("http://s", server.post, endpoint="score")
    assert await TrainedScorer(classifier).score(ASKED, [Sample(0, "seven")], nobody()) == [0.05]
    [(_, body, headers)] = server.sent
    assert (body["text_1"], body["text_2"], headers) == (["What is 3 + 4?"], ["seven"], {})


@pytest.mark.parametrize(
    "reply",
    [{"data": []}, {"data": None}, {"data": [{"index": 0}]}, {"data": [{"index": 0, "probs": [3.0]}]}],
)
async def test_a_malformed_reply_is_an_error(reply: dict[str, Any]) -> None:
    """A malformed reply is an error."""
    classifier = ServedClassifier("http://s", Server(**reply).post)
    with pytest.raises(ScorerError):
        await TrainedScorer(classifier).score(ASKED, [Sample(0, "seven")], nobody())


async def test_samples_without_text_are_not_sent() -> None:
    """A sample without text, such as tool calls, gets no score."""
    server = Server()
    scorer = TrainedScorer(ServedClassifier("http://s", server.post))
    assert await scorer.score(ASKED, [Sample(0, "")], nobody()) == [None]
    assert server.sent == []


def test_the_template_is_filled_once() -> None:
    """Placeholders within a reply stay as they are."""
    case = ClassifierInput("{answer}?", "{reasoning}{x}", "hm")
    assert (
        fill_template("Q: {question} A: {answer} ({reasoning}) {x}", case)
        == "Q: {answer}? A: {reasoning}{x} (hm) {x}"
    )


async def test_a_directory_without_a_model_is_an_error(tmp_path: Path) -> None:
    """Missing libraries or weights are a ScorerError, so that the vote can go on."""
    classifier = LocalClassifier(tmp_path)
    with pytest.raises(ScorerError, match="can't be loaded"):
        await classifier.classify([ClassifierInput("q", "a")])
    classifier.close()


@given(st.floats(0, 1), st.floats(0.1, 5), st.floats(-3, 3))
def test_a_calibration_keeps_the_order(probability: float, scale: float, shift: float) -> None:
    """A calibration is monotonic and stays within [0, 1]."""
    calibrated = Calibration(scale, shift)
    assert 0 <= calibrated(probability) <= calibrated(min(1.0, probability + 0.01)) <= 1


@given(st.floats(-15, 15))
def test_the_logit_is_the_inverse(value: float) -> None:
    """`logit` is the inverse of the logistic function."""
    assert logit(logistic(value)) == pytest.approx(value, abs=1e-3)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"temperature": 2.0}, 1.5 / 2),
        ({"logit_mean": 0.5, "logit_sigma": 0.25}, (1.5 - 0.5) / 0.25),
        ({"scale": 3.0, "shift": -1.0}, 3 * 1.5 - 1),
    ],
)
def test_calibrations_are_read(tmp_path: Path, written: dict[str, float], expected: float) -> None:
    """Each form of the file gives a line in the logits."""
    (path := tmp_path / "calibration.json").write_text(json.dumps(written))
    assert logit(read_calibration(path)(logistic(1.5))) == pytest.approx(expected)


@pytest.mark.parametrize("written", ["[]", "{}", '{"temperature": 0}', '{"scale": "x"}', "{"])
def test_a_malformed_calibration_is_an_error(tmp_path: Path, written: str) -> None:
    """A file of another form is an error."""
    (path := tmp_path / "calibration.json").write_text(written)
    with pytest.raises(ValueError, match=r".+"):
        read_calibration(path)


def test_platt_finds_the_line() -> None:
    """An overconfident classifier that says 0.99 and is correct 3 times in 4 is calibrated to 0.75."""
    said = [0.99] * 400 + [0.01] * 400
    true = [i % 4 != 0 for i in range(400)] + [i % 4 == 0 for i in range(400)]
    calibrated = fit_calibration(said, true)
    assert calibrated(0.99) == pytest.approx(0.75, abs=0.01)
    assert calibrated(0.01) == pytest.approx(0.25, abs=0.01)
    assert math.isfinite(fit_calibration([0.9, 0.1], [True, False]).scale)
