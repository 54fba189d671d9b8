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
    """The converted file."""
    path = tmp_path / "judge.gguf"
    path.write_bytes(b"GGUF")
    return path


@pytest.mark.parametrize("check", [GOOD, BAD], ids=["passed", "failed"])
def test_the_gate_is_bound_to_the_file(adapter: Path, out: Path, check: Check) -> None:
    """Its checks stay, passed or not; the file's digest replaces that of the weights."""
    gate = Gate((check,), "2026-01-31T12:00:00+00:00", model_digest(adapter), {"problems": 200})
    write_gate(adapter / "gate.json", gate)
    converted = convert_gate(adapter, out)
    assert converted == out.with_name("judge.gate.json")
    data = {"problems": 200, "converted_from": model_digest(adapter)}
    assert read_gate(converted) == replace(gate, model_sha256=model_digest(out), data=data)
    if check is GOOD:
        require_release("judge", converted, out)
    else:
        with pytest.raises(ValueError, match="did not pass"):
            require_release("judge", converted, out)


@pytest.mark.parametrize("digest", ["others", None])
def test_a_gate_of_other_weights_is_not_copied(adapter: Path, out: Path, digest: str | None) -> None:
    """Nor is a gate that names no weights."""
    write_gate(adapter / "gate.json", Gate((GOOD,), "2026-01-31T12:00:00+00:00", digest))
    with pytest.raises(AdapterError, match="belongs to other weights, and was not copied"):
        convert_gate(adapter, out)
    assert not out.with_name("judge.gate.json").exists()


def test_an_unreadable_gate_is_an_error(adapter: Path, out: Path) -> None:
    """A policy's adapter has no gate and needs none."""
    assert convert_gate(adapter, out) is None
    (adapter / "gate.json").write_text("{}")
    with pytest.raises(AdapterError, match="was not copied"):
        convert_gate(adapter, out)
    assert not out.with_name("judge.gate.json").exists()


def test_the_command_converts_the_gate_too(
    adapter: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names the new file; if the gate can't be converted, the command fails."""
    monkeypatch.setattr(training.export.gguf_adapter, "convert", lambda *_: 1)
    command = [str(adapter), "--base", "base.gguf", "--out", str(out)]
    write_gate(adapter / "gate.json", Gate((GOOD,), "2026-01-31T12:00:00+00:00", model_digest(adapter)))
    assert main(command) == 0
    assert "judge.gate.json: its release gate" in capsys.readouterr().out
    (adapter / "adapter_model.safetensors").write_bytes(b"trained on")
    assert main(command) == 1
    assert "belongs to other weights" in capsys.readouterr().err
