"""The release gate: what its file must say before a trained scorer is served."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.app import create_app
from gateway.cli import main
from gateway.config import ConfigError, Settings
from scorers.gate import Check, Gate, model_digest, parse_gate, read_gate, require_release, write_gate
from tests.fakes import ScriptedUpstream, says

GOOD = Check("within-problem AUC", 0.81, 0.7, True)
BAD = Check("gain over majority", -0.5, 0.0, False)
MADE = "2026-01-31T12:00:00+00:00"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a directory with weights in two files."""
    directory = tmp_path / "model"
    directory.mkdir()
    for name in ("model-00002.safetensors", "model-00001.safetensors"):
        (directory / name).write_bytes(name.encode())
    return directory


def settings(directory: Path, **more: Any) -> Settings:
    """Return settings with a scorer from this directory."""
    table = {"kind": "trained", "directory": str(directory), **more}
    return Settings.model_validate({"scorers": {"rm": table}})


def starts(settings: Settings) -> bool:
    """Make a gateway of the settings, which raises ConfigError if it can't start."""
    return bool(create_app(settings, ScriptedUpstream(says("7"))).routes)


def test_a_gate_is_read_as_it_was_written(tmp_path: Path) -> None:
    """A gate keeps every field in its file, and whether it passed follows from the checks."""
    gate = Gate((GOOD, BAD), MADE, "00", {"problems": 200})
    write_gate(tmp_path / "gate.json", gate)
    assert read_gate(tmp_path / "gate.json") == gate
    assert json.loads((tmp_path / "gate.json").read_text())["passed"] is False


def test_serving_needs_a_passing_gate_of_these_weights(model: Path) -> None:
    """Without a gate beside the weights, or with a failed gate or other weights, nothing starts."""
    with pytest.raises(ConfigError, match=r"^scorers\.rm: the release gate .*gate\.json is missing; .*\.$"):
        starts(settings(model))
    write_gate(model / "gate.json", Gate((GOOD, BAD), MADE, model_digest(model)))
    with pytest.raises(ConfigError, match=r"did not pass \(gain over majority is -0\.5, needed 0\)"):
        starts(settings(model))
    write_gate(model / "gate.json", Gate((GOOD,), MADE, model_digest(model)))
    assert starts(settings(model))
    (model / "model-00001.safetensors").write_bytes(b"others")
    with pytest.raises(ConfigError, match="is about other weights"):
        starts(settings(model))


def test_a_gate_for_local_weights_needs_a_digest(model: Path) -> None:
    """A gate for weights on this machine must name them, because another gate might be any model's."""
    write_gate(model / "gate.json", Gate((GOOD,), MADE))
    with pytest.raises(ConfigError, match=r"^scorers\.rm: .* names no weights \(model_sha256\); .*unproven"):
        starts(settings(model))
    assert starts(settings(model, unproven=True))


def test_unproven_needs_no_gate(model: Path) -> None:
    """With `unproven = true` a scorer is served without a gate."""
    assert starts(settings(model, unproven=True))


def test_a_served_scorer_names_its_gate(tmp_path: Path) -> None:
    """A gate for a model behind a URL needs no digest of its weights."""
    table = {"kind": "trained", "url": "http://rm"}
    with pytest.raises(ConfigError, match=r"needs a release gate \(gate = FILE\)"):
        starts(Settings.model_validate({"scorers": {"rm": table}}))
    write_gate(tmp_path / "rm.json", Gate((GOOD,), MADE, "of the server's"))
    assert starts(Settings.model_validate({"scorers": {"rm": {**table, "gate": str(tmp_path / "rm.json")}}}))


def test_the_command_refuses_in_one_sentence(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a passing gate the command fails with one sentence and listens on no port."""
    config = tmp_path / "thinkgate.toml"
    config.write_text(
        f'upstream = "http://127.0.0.1:9/v1"\n[scorers.rm]\nkind = "trained"\ndirectory = "{model}"\n'
    )
    assert main(["serve", "--port", "0", "--config", str(config)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("thinkgate: scorers.rm: the release gate")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "held",
    [
        [],
        {},
        {"passed": True, "checks": [], "made": MADE},
        {"passed": True, "checks": [BAD], "made": MADE},
        {"passed": False, "checks": [GOOD], "made": MADE},
        {"passed": True, "checks": [GOOD]},
        {"passed": True, "checks": [GOOD], "made": "yesterday"},
        {"passed": True, "checks": [GOOD], "made": MADE, "model_sha256": 1},
        {"passed": True, "checks": [GOOD], "made": MADE, "signed": "me"},
        {"passed": True, "checks": [{"name": "x", "value": "1", "needed": 0, "passed": True}], "made": MADE},
        {"passed": True, "checks": [{"name": "x", "passed": True}], "made": MADE},
        {"passed": True, "checks": ["x"], "made": MADE},
        {"passed": 1, "checks": [GOOD], "made": MADE},
    ],
)
def test_an_invalid_gate_releases_nothing(tmp_path: Path, held: Any) -> None:
    """A file of another form, or one that contradicts itself, is an error."""
    text = json.dumps(held, default=lambda check: {name: getattr(check, name) for name in check.__slots__})
    with pytest.raises(ValueError, match=r"."):
        parse_gate(text)
    (tmp_path / "gate.json").write_text(text)
    with pytest.raises(ValueError, match="can't be used"):
        require_release("rm", tmp_path / "gate.json")


def test_a_judge_that_was_trained_to_check_needs_a_gate_too(tmp_path: Path) -> None:
    """A judge that picks or grades was not trained for it and needs no gate."""
    table = {"kind": "judge", "method": "check", "model": "checker"}
    assert starts(Settings.model_validate({"scorers": {"rm": {**table, "method": "grade"}}}))
    with pytest.raises(ConfigError, match=r"needs a release gate \(gate = FILE\)"):
        starts(Settings.model_validate({"scorers": {"rm": table}}))
    write_gate(tmp_path / "gate.json", Gate((GOOD,), MADE))
    assert starts(
        Settings.model_validate({"scorers": {"rm": {**table, "gate": str(tmp_path / "gate.json")}}})
    )


@pytest.fixture
def judge(tmp_path: Path) -> Path:
    """Return a judge's file for the embedded engine."""
    path = tmp_path / "checker.gguf"
    path.write_bytes(b"GGUF and so on")
    return path


def with_judge(gate: Path, **more: Any) -> Settings:
    """Return settings with the check `checker`, released by this gate."""
    table = {"kind": "judge", "method": "check", "model": "checker", "gate": str(gate)}
    return Settings.model_validate({"scorers": {"rm": table}, **more})


@pytest.mark.parametrize("setting", ["embedded_adapters", "embedded_model"])
def test_a_judge_on_the_embedded_engine_is_checked(tmp_path: Path, judge: Path, setting: str) -> None:
    """The file under the judge's name, adapter or model, must be the measured one."""
    gate = tmp_path / "gate.json"
    more = {setting: (judge,) if setting == "embedded_adapters" else judge}
    write_gate(gate, Gate((GOOD,), MADE))
    with pytest.raises(ConfigError, match="names no weights"):
        starts(with_judge(gate, **more))
    write_gate(gate, Gate((GOOD,), MADE, model_digest(judge)))
    assert starts(with_judge(gate, **more))
    judge.write_bytes(b"GGUF of another")
    with pytest.raises(ConfigError, match="is about other weights"):
        starts(with_judge(gate, **more))
    judge.unlink()
    with pytest.raises(ConfigError, match=r"there is no .*checker\.gguf"):
        starts(with_judge(gate, **more))


def test_a_remote_judges_weights_are_not_checked(tmp_path: Path, judge: Path) -> None:
    """A judge at its own URL is not compared with the embedded engine's files."""
    gate = tmp_path / "gate.json"
    write_gate(gate, Gate((GOOD,), MADE, "of the server's"))
    served = with_judge(gate, upstream="http://gpu-box:8000/v1", embedded_adapters=(judge,))
    assert starts(served)
    elsewhere = served.scorers["rm"].model_copy(update={"url": "http://judge:8000/v1"})
    assert starts(Settings(scorers={"rm": elsewhere}, embedded_adapters=(judge,)))


def test_a_digest_is_of_the_weights_alone(model: Path) -> None:
    """A digest reads only the weights, in the order of their names; a single file has its own SHA-256."""
    digest = model_digest(model)
    (model / "card.json").write_text("{}")
    assert (
        model_digest(model)
        == digest
        == hashlib.sha256(b"model-00001.safetensorsmodel-00002.safetensors").hexdigest()
    )
    assert model_digest(model / "card.json") == hashlib.sha256(b"{}").hexdigest()
