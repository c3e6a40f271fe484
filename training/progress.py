"""What a person sees while a run goes on: a bar on a terminal, plain lines in a log file."""

import sys
import time
from typing import Self

from tqdm import tqdm

from data.words import duration


class Progress:
    """Updates done, images per second, loss and time left of one run."""

    def __init__(self, title: str, updates: int, done: int, batch_size: int, seconds_between_lines: float = 10) -> None:
        self.title, self.updates, self.done, self.batch_size = title, updates, done, batch_size
        self.every = seconds_between_lines
        self.started, self.first, self.last_line = time.monotonic(), done, time.monotonic()
        self.bar = None
        if sys.stderr.isatty():
            self.bar = tqdm(
                total=updates * batch_size, initial=done * batch_size, desc=title, unit=" images", unit_scale=True,
                leave=False, dynamic_ncols=True, mininterval=0.5,
            )  # fmt: skip

    def update(self, epoch: str, loss: float) -> None:
        """One optimizer update more."""
        self.done += 1
        if self.bar is not None:
            self.bar.set_postfix_str(f"epoch {epoch}, loss {loss:.3f}", refresh=False)
            self.bar.update(self.batch_size)
            return
        now = time.monotonic()
        if now - self.last_line >= self.every:
            self.last_line = now
            per_update = (now - self.started) / (self.done - self.first)
            left = per_update * (self.updates - self.done)
            rate = self.batch_size / per_update
            self.say(f"epoch {epoch}  {rate:,.0f} images/s  loss {loss:.3f}  {duration(left)} left")

    def say(self, text: str) -> None:
        """A line that stays."""
        if self.bar is not None:
            self.bar.write(f"{self.title}: {text}", file=sys.stderr)
        else:
            print(f"{self.title}: {text}", file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
