"""The process group of a run that `accelerate launch` has started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from training.config import ConfigError
from training.trainer.process_group import SINGLE_PROCESS, ProcessGroup, world_size
from training.trainer.untyped import HFTrainer

__all__ = ["process_group", "refuse_unsupported_sharding"]

T = TypeVar("T")
_TIMEOUT = timedelta(days=1)  # the process of rank 0 may ask a teacher for hours while the others wait


@dataclass(frozen=True)
class _LaunchedProcesses:
    """Communicates through accelerate: NCCL between GPUs, gloo between CPUs."""

    state: Any

    @property
    def rank(self) -> int:
        """See `ProcessGroup`."""
        return int(self.state.process_index)

    @property
    def world_size(self) -> int:
        """See `ProcessGroup`."""
        return int(self.state.num_processes)

    def gather(self, values: Sequence[T]) -> list[T]:
        """See `ProcessGroup`."""
        return list(gather_object(list(values)))

    def wait(self) -> None:
        """See `ProcessGroup`."""
        self.state.wait_for_everyone()


def process_group() -> ProcessGroup:
    """Return all processes of this run, connected on the first call; a single one without a launcher."""
    if world_size() == 1:
        return SINGLE_PROCESS
    return _LaunchedProcesses(PartialState(cpu=not torch.cuda.is_available(), timeout=_TIMEOUT))


def refuse_unsupported_sharding(trainer: HFTrainer) -> None:
    """Raise ConfigError for ways of sharding a model that can't be sampled from or saved here.

    Supported are whole weights in every process (data parallel, ZeRO 1 and 2) and FSDP 2.
    """
    plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    if plugin is not None and plugin.zero_stage == 3:
        raise ConfigError("DeepSpeed's ZeRO stage 3 is not supported: take stage 2, or FSDP version 2")
    if trainer.is_fsdp_enabled and not trainer.accelerator.is_fsdp2:
        raise ConfigError("FSDP version 1 is not supported: set fsdp_version to 2")
