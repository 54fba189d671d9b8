"""Two processes under accelerate train as one does: the same batches, completions, decisions and weights."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
load_file = pytest.importorskip("safetensors.torch").load_file
pytest.importorskip("trl")

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]

RUN = """
name = "shared"
output = "{output}"
threads = 1
pipeline = ["base", "cold-start", "rl"]
data = [{{ kind = "additions", digits = 1 }}]
general = [{{ kind = "errands" }}]

[model]
path = "made from nothing"
family = "thinkgate"

[held_out]
sources = [{{ kind = "additions", digits = 1 }}]
count = 9
budget = "off"
max_tokens = 6

[base]
problems = 90
max_steps = 80
learning_rate = 1e-3
batch = 16
eval_steps = 80
save_steps = 80
budgets = {{ off = 1 }}

[cold-start]
problems = 64
max_steps = 5
batch = 8
eval_steps = 3
save_steps = 5
budgets = {{ off = 1, low = 1 }}
general = 0.2

[rl]
problems = 64
max_steps = 5
warmup_steps = 0
groups = 4
num_generations = 4
per_device_train_batch_size = 4
rounds = 3
max_completion_length = 6
scale_rewards = "batch"
eval_steps = 2
save_steps = 2
budgets = {{ off = 3, low = 1 }}
difficulty = {{ low = 0, high = 1, samples = 2 }}
max_seconds = 1000
"""

DIES = """
import os, sys
from pathlib import Path
from training.train import main
from training.trainer.callbacks import StageCallback

log = StageCallback.on_log

def log_and_die(self, args, state, control, **kwargs):
    log(self, args, state, control, **kwargs)
    if "/rl" in args.output_dir and state.global_step == 3:
        os._exit(9)

StageCallback.on_log = log_and_die
sys.exit(main(["pipeline", sys.argv[1]]))
"""

SPREAD = """
import sys
from pathlib import Path
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from training.config import read_config
from training.stages.stage import Run
from training.trainer.generation import sample_completions
from training.trainer.models import save_model

config = read_config(Path(sys.argv[1]))
stage = Run(config).stage("rl", config.table("rl"))
model, tokenizer, prompter = stage.load(Path(sys.argv[2]))
count = stage.group.world_size
if count > 1:
    mesh = init_device_mesh("cpu", (count,))
    for part in (*model.model.layers, model):
        fully_shard(part, mesh=mesh)
prompts = [prompter.prompt(row, "low") for row in stage.held_out()]
drawn = sample_completions(model, prompter, prompts, samples=3, max_tokens=20, seed=5, batch=4)
# One process asks the last of nine twice, the other none: none may pass through the model alone.
drawn += sample_completions(model, prompter, prompts, temperature=0, max_tokens=20)
if stage.group.rank == 0:
    print("drawn:", [[reply.ids for reply in replies] for replies in drawn])
save_model(model, tokenizer, Path(sys.argv[3]))
"""


def write_run(directory: Path) -> Path:
    """Write the run's file, with its output beside it."""
    directory.mkdir(exist_ok=True)
    path = directory / "run.toml"
    path.write_text(RUN.format(output=directory / "out"), encoding="utf-8")
    return path


def launch(*command: str | Path, processes: int = 1) -> subprocess.CompletedProcess[str]:
    """Run Python with this command in several processes, by torch's launcher, as accelerate's own does.

    On CPUs accelerate's launcher starts several processes by mpirun alone.
    """
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    before = launcher if processes > 1 else []
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.getcwd(),
        "PYTHONWARNINGS": "ignore",
    }
    return subprocess.run(
        [sys.executable, *before, *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def metrics_of(directory: Path, stage: str) -> list[dict[str, Any]]:
    """Return a stage's metrics."""
    text = (directory / "out" / stage / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def processes_of(directory: Path) -> int:
    """Return how many processes took part in the last stage."""
    return int(json.loads((directory / "out" / "rl" / "card.json").read_text(encoding="utf-8"))["processes"])


def weight_change(directory: Path, stage: str, before: str) -> Any:
    """Return the change that a stage made to the weights."""
    old, new = (
        load_file(directory / "out" / name / "model" / "model.safetensors") for name in (before, stage)
    )
    return torch.cat([(new[name] - old[name]).flatten() for name in sorted(new)])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the directories of the run in one process, and of that in two, which was killed once."""
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    done = launch("-m", "training", "train", "pipeline", write_run(one))
    assert done.returncode == 0, done.stderr[-3000:]
    path = write_run(two)
    shutil.copytree(one / "out" / "base", two / "out" / "base")
    script = two / "dies.py"
    script.write_text(DIES, encoding="utf-8")
    died = launch(script, path, processes=2)
    assert died.returncode != 0
    assert (two / "out" / "rl" / "checkpoint-2" / "thinkgate.json").exists(), died.stderr[-3000:]
    assert not (two / "out" / "rl" / "card.json").exists()
    done = launch("-m", "training", "train", "pipeline", path, processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("The model is in") == 1
    assert [processes_of(directory) for directory in (one, two)] == [1, 2]
    return one, two


@pytest.mark.parametrize(("stage", "before"), [("cold-start", "base"), ("rl", "cold-start")])
def test_two_processes_train_the_same_model_as_one(
    trained: tuple[Path, Path], stage: str, before: str
) -> None:
    """Losses agree step by step, and the weights change in the same way, up to rounding."""
    one, two = ([line for line in metrics_of(d, stage) if "loss" in line] for d in trained)
    assert [line["step"] for line in one] == [line["step"] for line in two] == [1, 2, 3, 4, 5]
    for mine, theirs in zip(one, two, strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-3, abs=1e-5)
        assert theirs["grad_norm"] == pytest.approx(mine["grad_norm"], rel=1e-2)
    first, second = (weight_change(directory, stage, before) for directory in trained)
    assert first.norm() > 0
    assert (second - first).norm() < 1e-3 * first.norm()


def test_two_processes_sample_and_decide_the_same_as_one(trained: tuple[Path, Path]) -> None:
    """They train on the same problems after as many rounds, with the same metrics and evaluations."""
    one, two = (metrics_of(directory, "rl") for directory in trained)
    drawn = ("rows", "rounds", "accuracy", "total", "length", "live", "limit")
    assert [[line.get(name) for name in drawn] for line in one] == [
        [line.get(name) for name in drawn] for line in two
    ]
    assert [line["evaluation"] for line in one if "evaluation" in line] == [
        line["evaluation"] for line in two if "evaluation" in line
    ]
    steps = [line for line in one if "loss" in line]
    assert max(line["rounds"] for line in steps) > 1
    assert any(0 < line["live"] < 1 for line in steps)  # so that the processes' shares teach unequally


def test_sharded_weights_sample_and_save_the_same_as_whole_ones(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    """The test shards as FSDP does, because accelerate does not use FSDP on CPUs."""
    script = tmp_path / "spread.py"
    script.write_text(SPREAD, encoding="utf-8")
    outputs = []
    for processes in (1, 2):
        saved = tmp_path / str(processes)
        model = trained[0] / "out" / "base" / "model"
        done = launch(script, trained[0] / "run.toml", model, saved, processes=processes)
        assert done.returncode == 0, done.stderr[-3000:]
        outputs.append([line for line in done.stdout.splitlines() if line.startswith("drawn:")])
    assert outputs[0] == outputs[1] != []
    whole, spread = (load_file(tmp_path / name / "model.safetensors") for name in ("1", "2"))
    assert whole.keys() == spread.keys()
    assert all(torch.equal(whole[name], spread[name]) for name in whole)
