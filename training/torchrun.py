"""What torchrun says of this process: which of how many it is. No torch here."""

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class RankInfo:
    """A process among those that share a run."""

    rank: int = 0
    """Its number, from 0, over all machines. The first one decides, writes and speaks."""
    count: int = 1
    local_rank: int = 0
    """Its number on this machine, and of its device there."""
    local_count: int = 1
    """Processes on this machine."""


def place(environment: Mapping[str, str] = os.environ) -> RankInfo:
    """This process's place; the only one's where torchrun did not start it."""
    if "TORCHELASTIC_RUN_ID" not in environment:
        return RankInfo()
    return RankInfo(
        *(
            int(environment[name])
            for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        )
    )
