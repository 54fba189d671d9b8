"""`training.trainer.process_group.Ranks` over the processes that `accelerate launch` has started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from training.config import ConfigError
from training.trainer.process_group import ALONE, Ranks, process_count

__all__ = ["processes", "refuse_unknown_split"]

T = TypeVar("T")
_PATIENCE = timedelta(days=1)  # the first process may ask a teacher for hours while the others wait


@dataclass(frozen=True)
class _Launched:
    """Speaks through accelerate: NCCL between GPUs, gloo between CPUs."""

    state: Any

    @property
    def index(self) -> int:
        """See `Ranks`."""
        return int(self.state.process_index)

    @property
    def count(self) -> int:
        """See `Ranks`."""
        return int(self.state.num_processes)

    def gather(self, values: Sequence[T]) -> list[T]:
        """See `Ranks`."""
        return list(gather_object(list(values)))

    def wait(self) -> None:
        """See `Ranks`."""
        self.state.wait_for_everyone()


def processes() -> Ranks:
    """All processes of this run, connected on the first call; alone where none were launched with it."""
    if process_count() == 1:
        return ALONE
    return _Launched(PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE))


def refuse_unknown_split(trainer: Any) -> None:
    """Raises ConfigError for ways of splitting a model whose weights can't be drawn from or saved here.

    Whole in every process (data parallel, ZeRO 1 and 2) and FSDP 2 are what works.
    """
    plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    if plugin is not None and plugin.zero_stage == 3:
        raise ConfigError("DeepSpeed's ZeRO stage 3 is not supported: take stage 2, or FSDP version 2")
    if trainer.is_fsdp_enabled and not trainer.accelerator.is_fsdp2:
        raise ConfigError("FSDP version 1 is not supported: set fsdp_version to 2")
