"""A judge's release gate follows its weights into the file that the embedded engine serves."""

from dataclasses import replace
from pathlib import Path

import pytest

import training.export.gguf_adapter
from scorers.gate import Check, Gate, model_digest, read_gate, require_release, write_gate
from training.export.gguf_adapter import AdapterError, convert_gate, main

BAD = Check("within-problem AUC", 0.6, 0.75, False)
GOOD = Check("within-problem AUC", 0.81, 0.75, True)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A directory with an adapter's weights."""
    directory = tmp_path / "adapter"
    directory.mkdir()
    (directory / "adapter_model.safetensors").write_bytes(b"weights")
    return directory


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The file that was made of them."""
    path = tmp_path / "judge.gguf"
    path.write_bytes(b"GGUF")
    return path


@pytest.mark.parametrize("check", [GOOD, BAD], ids=["passed", "failed"])
def test_the_gate_is_bound_to_the_file(adapter: Path, out: Path, check: Check) -> None:
    """What was measured stays, passed or not; the file's digest stands in the place of the weights'."""
    gate = Gate((check,), "2026-01-31T12:00:00+00:00", model_digest(adapter), {"problems": 200})
    write_gate(adapter / "gate.json", gate)
    beside = convert_gate(adapter, out)
    assert beside == out.with_name("judge.gate.json")
    data = {"problems": 200, "converted_from": model_digest(adapter)}
    assert read_gate(beside) == replace(gate, model_sha256=model_digest(out), data=data)
    if check is GOOD:
        require_release("judge", beside, out)
    else:
        with pytest.raises(ValueError, match="did not pass"):
            require_release("judge", beside, out)


@pytest.mark.parametrize("digest", ["others", None])
def test_a_gate_of_other_weights_stays_behind(adapter: Path, out: Path, digest: str | None) -> None:
    """Or of none in particular: nobody measured these."""
    write_gate(adapter / "gate.json", Gate((GOOD,), "2026-01-31T12:00:00+00:00", digest))
    with pytest.raises(AdapterError, match="is about other weights, and was left behind"):
        convert_gate(adapter, out)
    assert not out.with_name("judge.gate.json").exists()


def test_what_is_no_gate_stays_behind(adapter: Path, out: Path) -> None:
    """A file that can't be read as one is told of; an adapter without any, as a policy's, needs none."""
    assert convert_gate(adapter, out) is None
    (adapter / "gate.json").write_text("{}")
    with pytest.raises(AdapterError, match="was left behind"):
        convert_gate(adapter, out)
    assert not out.with_name("judge.gate.json").exists()


def test_the_command_brings_it_along(
    adapter: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says so; and where it can't, the command has failed, though the weights were converted."""
    monkeypatch.setattr(training.export.gguf_adapter, "convert", lambda *_: 1)
    command = [str(adapter), "--base", "base.gguf", "--out", str(out)]
    write_gate(adapter / "gate.json", Gate((GOOD,), "2026-01-31T12:00:00+00:00", model_digest(adapter)))
    assert main(command) == 0
    assert "judge.gate.json: its release gate" in capsys.readouterr().out
    (adapter / "adapter_model.safetensors").write_bytes(b"trained on")
    assert main(command) == 1
    assert "is about other weights" in capsys.readouterr().err
