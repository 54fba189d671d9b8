"""Load an export with OpenRLHF's own code: `probe_openrlhf.py OUT FOLDER rl|cold-start`.

OpenRLHF imports vLLM and flash-attention, which need a GPU. Stub modules, which have every attribute and do
nothing, replace them. The findings do not depend on them.
"""

import ast
import asyncio
import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

from training.config import read_config
from training.export.plan import ExportPlan, load_prompter, rollout_problems, sft_examples

out, folder, stage = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
export = folder / f"openrlhf-{stage}"


class Absent(MagicMock):
    """A stub module."""

    __path__ = ()


class Stubs(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds stubs for modules that need a GPU; it comes last, so that installed modules win."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return a spec for the stubbed packages."""
        if name.partition(".")[0] not in ("vllm", "flash_attn"):
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: Any) -> ModuleType:
        """Return a stub with every attribute."""
        return Absent(name=spec.name, __spec__=spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run nothing."""


sys.meta_path.append(Stubs())


def parse_arguments(name: str, words: Sequence[str]) -> Any:
    """Return the arguments from the program's own parser and checks, without running its `train`."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    (train,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "train")
    train.body = ast.parse("CALLS.append(args)").body
    calls: list[Any] = []
    sys.argv = [name, *words]
    exec(compile(tree, spec.origin, "exec"), {"__name__": "__main__", "CALLS": calls})
    return calls[0]


words = (export / "options.txt").read_text(encoding="utf-8").replace("@here@", str(export)).split("\n")[:-1]
plan = ExportPlan.for_stage(read_config(folder / "run.toml"), stage, folder / "run.toml", 2)  # type: ignore[arg-type]
prompter = load_prompter(plan)


def plain(namespace: Any) -> Any:
    """Convert namespaces to dictionaries."""
    if isinstance(namespace, SimpleNamespace):
        return {name: plain(value) for name, value in vars(namespace).items()}
    return namespace


def strategy(args: Any) -> Any:
    """Build as much of DeepSpeed's strategy as the data sets need."""
    return SimpleNamespace(args=args, is_rank_0=lambda: True, print=lambda *a: None)


class ConstantEngine:
    """A vLLM engine that always gives the same reply."""

    def __init__(self, ids: list[int]) -> None:
        self._ids = ids

    async def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Return the reply."""
        reply = SimpleNamespace(token_ids=self._ids, finish_reason="stop", logprobs=None)
        return SimpleNamespace(outputs=[reply])


def rl() -> dict[str, Any]:
    """Check the parser, data and reward of reinforcement learning."""
    from openrlhf.datasets import PromptDataset
    from openrlhf.datasets.utils import blending_datasets
    from openrlhf.utils.agent import SingleTurnAgentExecutor
    from transformers import AutoTokenizer

    args = parse_arguments("openrlhf.cli.train_ppo_ray", words)
    tokenizer = AutoTokenizer.from_pretrained(args.actor.model_name_or_path)
    data = blending_datasets(args.data.prompt_dataset, None, strategy(args), dataset_split="train")
    dataset = PromptDataset(data, tokenizer, strategy(args), input_template=args.data.input_template)
    held_out = blending_datasets(args.eval.dataset, None, strategy(args), dataset_split=args.eval.split)
    rollouts = rollout_problems(plan, prompter)
    texts = [dataset[index][1] for index in range(len(dataset))]
    high = next(index for index, rollout in enumerate(rollouts) if rollout.prompt.budget == "high")
    gold, end = int(rollouts[high].problem.gold or ""), tokenizer.eos_token
    replies = {
        "right": f"1+1=2\n</think>\n\n{gold}{end}",
        "wrong": f"1+1=2\n</think>\n\n{gold + 1}{end}",
        "cut off": f"1+1=2\n</think>\n\n{gold}",
        "formless": f"{gold}{end}",
    }
    executor = SingleTurnAgentExecutor(args.reward.remote_url)
    _, prompt, label, _ = dataset[high]
    scores = {}
    for name, text in replies.items():
        ids = tokenizer.encode(text, add_special_tokens=False)
        sampling = SimpleNamespace(max_tokens=args.rollout.max_new_tokens, logprobs=None)
        execution = executor.execute(
            prompt, label, sampling, args.data.max_len, tokenizer, ConstantEngine(ids)
        )
        result = asyncio.run(execution)
        prompt_ids = result["observation_tokens"][: -len(ids)]
        scores[name] = {
            "reward": float(result["reward"][0]),
            "score": float(result["scores"][0]),
            "prompt": prompt_ids == list(rollouts[high].prompt.ids),
        }
    return {
        "args": plain(args),
        "prompts_agree": texts == [rollout.prompt.text for rollout in rollouts],
        "tokens_agree": [tokenizer.encode(text, add_special_tokens=False) for text in texts]
        == [list(rollout.prompt.ids) for rollout in rollouts],
        "held_out": len(held_out),
        "scores": scores,
        "scheduler": bool(scheduler(args.actor.lr_scheduler)),
    }


def sft() -> dict[str, Any]:
    """Check the parser and data of fine-tuning."""
    from openrlhf.datasets import SFTDataset
    from openrlhf.datasets.utils import blending_datasets
    from transformers import AutoTokenizer

    args = parse_arguments("openrlhf.cli.train_sft", words)
    tokenizer = AutoTokenizer.from_pretrained(args.model.model_name_or_path)
    data = blending_datasets(args.data.dataset, None, strategy(args), dataset_split="train")
    dataset = SFTDataset(
        data,
        tokenizer,
        args.data.max_len,
        strategy(args),
        input_template=args.data.input_template,
        num_processors=1,
    )
    agree = []
    for index, example in enumerate(sft_examples(plan, prompter)):
        ids, _, mask = dataset[index]
        # The mask selects the positions that predict the reply's tokens.
        target = ids[0][1:][mask[0][:-1].bool()].tolist()
        expected = [*example.prompt.ids, *example.target]
        agree.append(ids[0].tolist() == expected and target == list(example.target))
    return {
        "args": plain(args),
        "agree": agree,
        "examples": len(dataset),
        "scheduler": bool(scheduler(args.lr_scheduler)),
    }


def scheduler(name: str) -> Any:
    """Build the learning-rate schedule by its name in transformers, as OpenRLHF does."""
    import torch
    from transformers.trainer import get_scheduler

    return get_scheduler(name, torch.optim.SGD([torch.zeros(1)], lr=1.0), 1, 4)


out.write_text(json.dumps(rl() if stage == "rl" else sft(), default=str), encoding="utf-8")
