"""The place of this process among those that torchrun started. No torch here."""

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class RankInfo:
    """A process among those that share a run; by default the only one."""

    rank: int = 0
    """Its number over all machines, from 0. The first process decides, writes and logs."""
    count: int = 1
    local_rank: int = 0
    """Its number on this machine, and that of its device there."""
    local_count: int = 1
    """Processes on this machine."""


def rank_info(environment: Mapping[str, str] = os.environ) -> RankInfo:
    """Read torchrun's environment variables."""
    if "TORCHELASTIC_RUN_ID" not in environment:
        return RankInfo()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return RankInfo(*(int(environment[name]) for name in names))
