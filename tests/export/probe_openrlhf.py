"""Puts an export to OpenRLHF's own code: `probe_openrlhf.py TOLD FOLDER rl|cold-start`.

vLLM and flash-attention, which it imports on loading and which need a GPU, are stood in for by
modules that have everything and do nothing; nothing that is looked at here touches them.
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
from training.export.stage_export import StageExport, load_prompter, rollout_problems, sft_examples

told, folder, stage = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
export = folder / f"openrlhf-{stage}"


class Absent(MagicMock):
    """A module that isn't there."""

    __path__ = ()


class Stubs(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds what needs a GPU; asked last, so that what is installed is taken."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Where it would be found."""
        if name.partition(".")[0] not in ("vllm", "flash_attn"):
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: Any) -> ModuleType:
        """One with everything in it."""
        return Absent(name=spec.name, __spec__=spec)

    def exec_module(self, module: ModuleType) -> None:
        """It has no code."""


sys.meta_path.append(Stubs())


def parsed(name: str, words: Sequence[str]) -> Any:
    """What the program's own parser and checks make of a command line; its `train` alone is not run."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    (train,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "train")
    train.body = ast.parse("TOLD.append(args)").body
    found: list[Any] = []
    sys.argv = [name, *words]
    exec(compile(tree, spec.origin, "exec"), {"__name__": "__main__", "TOLD": found})
    return found[0]


words = (export / "options.txt").read_text(encoding="utf-8").replace("@here@", str(export)).split("\n")[:-1]
job = StageExport.of(read_config(folder / "run.toml"), stage, folder / "run.toml", 2)  # type: ignore[arg-type]
own = load_prompter(job)


def plain(namespace: Any) -> Any:
    """Namespaces as dictionaries."""
    if isinstance(namespace, SimpleNamespace):
        return {name: plain(value) for name, value in vars(namespace).items()}
    return namespace


def strategy(args: Any) -> Any:
    """As much of DeepSpeed's strategy as the data sets ask."""
    return SimpleNamespace(args=args, is_rank_0=lambda: True, print=lambda *a: None)


class Request:
    """vLLM's engine, which always gives one reply."""

    def __init__(self, ids: list[int]) -> None:
        self._ids = ids

    async def generate(self, *args: Any, **kwargs: Any) -> Any:
        """It."""
        reply = SimpleNamespace(token_ids=self._ids, finish_reason="stop", logprobs=None)
        return SimpleNamespace(outputs=[reply])


def rl() -> dict[str, Any]:
    """Parser, data and reward of reinforcement learning."""
    from openrlhf.datasets import PromptDataset
    from openrlhf.datasets.utils import blending_datasets
    from openrlhf.utils.agent import SingleTurnAgentExecutor
    from transformers import AutoTokenizer

    args = parsed("openrlhf.cli.train_ppo_ray", words)
    tokenizer = AutoTokenizer.from_pretrained(args.actor.model_name_or_path)
    data = blending_datasets(args.data.prompt_dataset, None, strategy(args), dataset_split="train")
    dataset = PromptDataset(data, tokenizer, strategy(args), input_template=args.data.input_template)
    kept = blending_datasets(args.eval.dataset, None, strategy(args), dataset_split=args.eval.split)
    asked = rollout_problems(job, own)
    texts = [dataset[place][1] for place in range(len(dataset))]
    high = next(place for place, each in enumerate(asked) if each.prompt.budget == "high")
    gold, end = int(asked[high].row.gold or ""), tokenizer.eos_token
    replies = {
        "right": f"1+1=2\n</think>\n\n{gold}{end}",
        "wrong": f"1+1=2\n</think>\n\n{gold + 1}{end}",
        "cut off": f"1+1=2\n</think>\n\n{gold}",
        "formless": f"{gold}{end}",
    }
    executor = SingleTurnAgentExecutor(args.reward.remote_url)
    _, prompt, label, _ = dataset[high]
    found = {}
    for name, text in replies.items():
        ids = tokenizer.encode(text, add_special_tokens=False)
        sampling = SimpleNamespace(max_tokens=args.rollout.max_new_tokens, logprobs=None)
        run = executor.execute(prompt, label, sampling, args.data.max_len, tokenizer, Request(ids))
        done = asyncio.run(run)
        prompt_ids = done["observation_tokens"][: -len(ids)]
        found[name] = {
            "reward": float(done["reward"][0]),
            "score": float(done["scores"][0]),
            "prompt": prompt_ids == list(asked[high].prompt.ids),
        }
    return {
        "args": plain(args),
        "prompts_agree": texts == [each.prompt.text for each in asked],
        "tokens_agree": [tokenizer.encode(text, add_special_tokens=False) for text in texts]
        == [list(each.prompt.ids) for each in asked],
        "held_out": len(kept),
        "scores": found,
        "scheduler": bool(scheduler(args.actor.lr_scheduler)),
    }


def sft() -> dict[str, Any]:
    """Parser and data of fine-tuning."""
    from openrlhf.datasets import SFTDataset
    from openrlhf.datasets.utils import blending_datasets
    from transformers import AutoTokenizer

    args = parsed("openrlhf.cli.train_sft", words)
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
    for place, example in enumerate(sft_examples(job, own)):
        ids, _, mask = dataset[place]
        # its mask marks the places from which the reply's tokens are foretold
        learned = ids[0][1:][mask[0][:-1].bool()].tolist()
        whole = [*example.prompt.ids, *example.target]
        agree.append(ids[0].tolist() == whole and learned == list(example.target))
    return {
        "args": plain(args),
        "agree": agree,
        "rows": len(dataset),
        "scheduler": bool(scheduler(args.lr_scheduler)),
    }


def scheduler(name: str) -> Any:
    """The learning rate's course, by transformers' name for it, as OpenRLHF looks it up."""
    import torch
    from transformers.trainer import get_scheduler

    return get_scheduler(name, torch.optim.SGD([torch.zeros(1)], lr=1.0), 1, 4)


told.write_text(json.dumps(rl() if stage == "rl" else sft(), default=str), encoding="utf-8")
