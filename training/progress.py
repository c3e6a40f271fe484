"""What a person sees while a run goes on: a bar on a terminal, plain lines in a log file."""

import math
import sys
import time
from typing import Any, Self

from tqdm import tqdm

from utils.text import duration


class Progress:
    """Updates done, images per second, loss and time left of one run."""

    def __init__(
        self,
        title: str,
        updates: int,
        done: int,
        batch_size: int,
        seconds_between_lines: float = 10,
        told: bool = True,
    ) -> None:
        """`told` is whether anybody is to see it: of many processes one tells."""
        self.title, self.updates, self.done, self.batch_size = title, updates, done, batch_size
        self.told = told
        self.every = seconds_between_lines
        self.started, self.first, self.last_line = time.monotonic(), done, time.monotonic()
        self.epoch = ""
        self.bar = None
        if told and sys.stderr.isatty():
            self.bar = tqdm(
                total=updates * batch_size,
                initial=done * batch_size,
                desc=title,
                unit=" images",
                unit_scale=True,
                leave=False,
                dynamic_ncols=True,
                mininterval=0.5,
            )

    def update(self, epoch: str, loss: float) -> None:
        """One optimizer update more."""
        self.done += 1
        self.epoch = epoch
        if self.bar is not None:
            self.bar.set_postfix_str(f"epoch {epoch}, loss {loss:.3f}", refresh=False)
            self.bar.update(self.batch_size)
            return
        now = time.monotonic()
        if now - self.last_line >= self.every:
            self.last_line = now
            far = self.read()
            known = (
                "" if math.isnan(loss) else f"loss {loss:.3f}  "
            )  # on CUDA losses come two updates late
            self.say(
                f"epoch {epoch}  {far['images_per_second']:,.0f} images/s  {known}"
                f"{duration(far['seconds_left'])} left"
            )

    def read(self) -> dict[str, Any]:
        """How far the run is, and how long it will take yet, by this process's rate."""
        made = self.done - self.first
        per_update = (time.monotonic() - self.started) / made if made else 0.0
        return {
            "epoch": self.epoch,
            "update": self.done,
            "updates": self.updates,
            "images_per_second": self.batch_size / per_update if made else None,
            "seconds_left": per_update * (self.updates - self.done) if made else None,
        }

    def say(self, text: str) -> None:
        """A line that stays."""
        if not self.told:
            return
        if self.bar is not None:
            self.bar.write(f"{self.title}: {text}", file=sys.stderr)
        else:
            print(f"{self.title}: {text}", file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
