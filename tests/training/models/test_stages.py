"""The stages of training, on a tiny model and with a few steps each."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from scorers.answers import verify  # noqa: E402
from tests.training.models.small import card, steps  # noqa: E402
from training.config import read_config  # noqa: E402
from training.data.arithmetic import errands  # noqa: E402
from training.data.constraints import is_satisfied  # noqa: E402
from training.data.instructions import instruction  # noqa: E402
from training.data.problems import DataError  # noqa: E402
from training.stages import pipeline, run_stage  # noqa: E402
from training.stages.measure import majority_answer  # noqa: E402
from training.stages.sft_examples import best_completions, correctness, general_examples  # noqa: E402
from training.stages.stage import Run  # noqa: E402
from training.tiny.model import build  # noqa: E402
from training.types import Completion, Problem  # noqa: E402

pytestmark = [
    pytest.mark.training,
    pytest.mark.filterwarnings("ignore"),
]  # what the libraries deprecate among themselves

SMALL = """
name = "small"
output = "{output}"
threads = 1
pipeline = {pipeline}
data = [{{ kind = "additions", digits = 1 }}]
general = [{{ kind = "errands" }}]

[model]
path = "{start}"
family = "thinkgate"

[held_out]
sources = [{{ kind = "additions", digits = 1 }}]
count = 4
max_tokens = 8

[base]
problems = 64
max_steps = 4
batch = 8
eval_steps = 2
save_steps = 2
budgets = {{ off = 1, low = 1, high = 1, none = 1 }}
general = 0.2

[zero]
problems = 16
max_steps = 2
groups = 2
num_generations = 4
per_device_train_batch_size = 8
max_completion_length = 8
eval_steps = 2
save_steps = 2
budgets = {{ high = 1 }}

[cold-start]
problems = 64
max_steps = 2
batch = 8
eval_steps = 2
save_steps = 2

[rl]
problems = 5
max_steps = 6
groups = 2
num_generations = 4
per_device_train_batch_size = 4
rounds = 2
max_completion_length = 8
eval_steps = 3
save_steps = 2
budgets = {{ off = 1, low = 1, high = 1 }}

[rejection]
problems = 8
samples = 2
max_steps = 2
batch = 4
eval_steps = 2
save_steps = 2
max_tokens = 8
general = 0.5

[mixed]
problems = 12
max_steps = 2
groups = 2
num_generations = 4
per_device_train_batch_size = 8
max_completion_length = 8
eval_steps = 2
save_steps = 2
general = 0.5
"""

DIES = """
import os, sys
from pathlib import Path
from training.config import read_config
from training.stages import run_stage
from training.trainer.callbacks import StageCallback

log = StageCallback.on_log

def log_and_die(self, args, state, control, **kwargs):
    log(self, args, state, control, **kwargs)
    if state.global_step == int(sys.argv[2]):
        os._exit(9)

StageCallback.on_log = log_and_die
run_stage(read_config(Path(sys.argv[1])), "rl")
"""


def small(directory: Path, *pipeline_: str) -> Path:
    """Write a small run's settings; without `base` it starts from a still smaller model."""
    start = directory / "start"
    if "base" not in pipeline_ and not start.exists():
        build(start, width=64, layers=1)
    path, stages = directory / "run.toml", json.dumps(pipeline_)
    path.write_text(SMALL.format(output=directory / "out", pipeline=stages, start=start), encoding="utf-8")
    return path


def test_all_stages_run_in_order_and_each_starts_from_the_one_before(tmp_path: Path) -> None:
    """The pipeline leaves a model, a card and curves of every stage, and does nothing when run again."""
    config = read_config(small(tmp_path, "base", "zero", "cold-start", "rl", "mixed"))
    model = pipeline(config)
    assert model == config.output / "mixed" / "model"
    for stage in config.pipeline:
        run_card = card(config, stage)
        assert run_card["stage"] == stage
        assert run_card["ended"] == "all steps done"
        assert (config.output / stage / "model" / "model.safetensors").exists()
        assert (config.output / stage / "curves.svg").read_text(encoding="utf-8").startswith("<svg")
    before = (config.output / "mixed" / "card.json").stat().st_mtime_ns
    assert pipeline(config) == model
    assert (config.output / "mixed" / "card.json").stat().st_mtime_ns == before


def test_a_killed_stage_resumes_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """It asks the same problems, samples the same completions and has the same losses."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    runs = []
    for directory in (whole, killed):
        directory.mkdir()
        runs.append(small(directory, "rl"))
    run_stage(read_config(runs[0]), "rl")
    step = random.randrange(1, 6)
    died = subprocess.run([sys.executable, "-W", "ignore", "-c", DIES, str(runs[1]), str(step)], check=False)
    assert died.returncode == 9
    assert not (killed / "out" / "rl" / "card.json").exists()
    run_stage(read_config(runs[1]), "rl")
    assert steps(read_config(runs[1]), "rl") == steps(read_config(runs[0]), "rl"), (
        f"killed behind step {step}"
    )


def ended_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, *accuracies: float) -> Any:
    """Return the card of a stage with these accuracies.

    Its weights change at every evaluation after the first. The resulting weights must be those of the start.
    """
    left = iter(accuracies)

    def accuracy(stage: Any, model: Any, *_: Any) -> dict[str, float]:
        accuracy_now = next(left)
        if evaluated:
            with torch.no_grad():
                next(model.parameters()).add_(1.0)
        evaluated.append(accuracy_now)
        return {"accuracy": accuracy_now, "finished": 1.0}

    evaluated: list[float] = []
    monkeypatch.setattr("training.stages.stage.Stage.evaluate", accuracy)
    path = small(tmp_path, "rl")
    path.write_text(path.read_text(encoding="utf-8").replace("rounds = 2", f"rounds = 2\n{option}"))
    config = read_config(path)
    model = run_stage(config, "rl")
    assert evaluated == list(accuracies)
    first = (tmp_path / "start" / "model.safetensors").read_bytes()
    assert (model / "model.safetensors").read_bytes() == first
    assert (model / "tokenizer.json").exists()
    return card(config, "rl")


def test_a_stage_whose_accuracy_falls_ends_with_its_best_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fall of ten points in two evaluations in a row."""
    run_card = ended_with(tmp_path, monkeypatch, "", 0.5, 0.4, 0.3)
    assert "restored the best checkpoint" in run_card["ended"]


def test_a_stage_may_end_with_its_best_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the last evaluation is worse than an earlier one, though by too little for the guard."""
    run_card = ended_with(tmp_path, monkeypatch, "load_best_model_at_end = true", 0.52, 0.5, 0.51)
    assert (run_card["ended"], run_card["weights"]) == ("all steps done", "best evaluation")


def test_nothing_right_to_imitate_is_an_error(tmp_path: Path) -> None:
    """Rejection sampling from a model that gets nothing right says so."""
    config = read_config(small(tmp_path, "rejection"))
    with pytest.raises(DataError, match="none of the replies to 8 questions was right"):
        run_stage(config, "rejection")


def test_general_problems_teach_written_answers_or_the_models_own(tmp_path: Path) -> None:
    """A model answers instructions without an answer itself; only a reply that obeys is learned."""
    written, instructed = next(errands("test")), instruction(1, 0)
    with Run(read_config(small(tmp_path, "rejection"))) as run:
        stage = run.stage("rejection", run.config.table("rejection"))
        model, _, prompter = stage.load(None)
        examples = general_examples(stage, model, prompter, [written, instructed])
    assert examples[0].target == prompter.target(examples[0].prompt, "", written.extra["answer"])
    for example in examples[1:]:
        answer = prompter.completion(example.prompt, example.target).answer
        assert all(is_satisfied(check, answer) for check in instructed.checks)


def test_the_graders_workers_decide_hard_answers(tmp_path: Path) -> None:
    """As in serving: in a teacher's replies, in those of the policy, and in a vote."""
    problem = Problem("1", "What is the area under the line y = x from 0 to 1?", "1/2")
    right, wrong = (Completion("", (n,), "", rf"\boxed{{\int_0^{n} x\,dx}}", 0, True) for n in (1, 2))
    with Run(read_config(small(tmp_path, "rl"))) as run:
        stage = run.stage("rl", run.config.table("rl"))
        assert list(correctness(stage, [problem])(problem, [right, wrong])) == [1.0, 0.0]
        plain = Completion("", (3,), "", r"\boxed{0.5}", 0, True)
        assert verify(majority_answer([wrong, right, plain], run.pool), "1/2", run.pool) is True
    assert majority_answer([wrong, right, plain]) == wrong.answer


def test_a_held_out_question_needs_a_verifiable_reward(tmp_path: Path) -> None:
    """A preference model judges errands, and says nothing of correct and wrong."""
    path = small(tmp_path, "rl")
    text = path.read_text(encoding="utf-8")
    path.write_text(
        text.replace('sources = [{ kind = "additions"', 'sources = [{ kind = "errands"'), encoding="utf-8"
    )
    with pytest.raises(DataError, match="'preference' is not"):
        run_stage(read_config(path), "rl")


def test_the_best_replies_are_right_finished_different_and_short() -> None:
    """The shortest come first; with a scorer, those that it ranks highest."""
    problem = Problem("1", "What is 1+1?", "2")

    def reply(ids: tuple[int, ...], thinking: str = "1+1=2", *, finished: bool = True) -> Completion:
        return Completion("", ids, thinking, "2", 3, finished, "high")

    short, long, same, wrong, cut = (
        reply((1, 2)),
        reply((1, 2, 3)),
        reply((1, 2)),
        reply((9,)),
        reply((8,), finished=False),
    )
    replies, values = [long, short, same, wrong, cut], [1.0, 1.0, 1.0, 0.0, 1.0]
    assert best_completions(problem, replies, values, 4) == [same, long]
    assert best_completions(problem, replies, values, 1, scores=[0.9, 0.2, 0.2, 1.0, 1.0]) == [long]


def test_the_same_seed_gives_the_same_model_and_another_seed_another(tmp_path: Path) -> None:
    """A run is a function of its configuration."""
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        directory = tmp_path / name
        directory.mkdir()
        config = read_config(small(directory, "base"), seed=seed)
        model = run_stage(config, "base")
        weights.append((model / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]
