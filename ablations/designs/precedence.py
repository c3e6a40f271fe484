"""Orders of decisions that need others before them.

A set of decisions is a whole number: bit i says whether decision i is in it. The average effect of
a decision over all allowed orders is its Shapley value under precedence (Faigle and Kern, 1992).
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

_MOST_SETS = 50_000
"""Counting the orders of so many sets takes a second or two."""


@dataclass(frozen=True)
class Orders:
    """The allowed orders of n decisions, each as likely as any other."""

    needs: tuple[int, ...]
    """For each decision, the set of those that have to come before it."""

    @property
    def everything(self) -> int:
        return (1 << len(self.needs)) - 1

    @property
    def sets(self) -> tuple[int, ...]:
        """All sets that an order can pass through, from the empty to the whole one."""
        return tuple(sorted(self._after))

    def following(self, done: int) -> Iterator[int]:
        """Yield the decisions that can come next."""
        for decision, needed in enumerate(self.needs):
            if not done >> decision & 1 and needed & ~done == 0:
                yield decision

    @cached_property
    def _after(self) -> dict[int, int]:
        """For each set, the number of orders in which the other decisions can follow.

        Raises:
            ValueError: there are too many sets.
        """
        reached, layer = {0}, {0}
        while layer:
            layer = {done | 1 << decision for done in layer for decision in self.following(done)}
            reached |= layer
            if len(reached) > _MOST_SETS:
                raise ValueError(
                    f"{len(self.needs)} decisions can be combined in more than {_MOST_SETS:,} "
                    "ways: take groups of them"
                )
        after = {self.everything: 1}
        for done in sorted(reached - {self.everything}, key=int.bit_count, reverse=True):
            after[done] = sum(after[done | 1 << decision] for decision in self.following(done))
        return after

    def exact(self) -> dict[tuple[int, int], float]:
        """Return, for (a decision, a set), the share of orders that add the decision to the set."""
        after = self._after
        before, total = {0: 1}, after[0]
        shares: dict[tuple[int, int], float] = {}
        for done in sorted(after, key=int.bit_count):
            for decision in self.following(done):
                larger = done | 1 << decision
                before[larger] = before.get(larger, 0) + before[done]
                shares[decision, done] = before[done] * after[larger] / total
        return shares

    def draw(self, count: int, seed: int = 0) -> list[tuple[int, ...]]:
        """Return `count` random orders, each as likely as any other."""
        after = self._after
        chance, drawn = random.Random(seed), list[tuple[int, ...]]()
        for _ in range(count):
            done, order = 0, list[int]()
            while done != self.everything:
                choices = list(self.following(done))
                (decision,) = chance.choices(
                    choices, [after[done | 1 << choice] for choice in choices]
                )
                order.append(decision)
                done |= 1 << decision
            drawn.append(tuple(order))
        return drawn

    def within(self, most_sets: int, seed: int = 0) -> list[tuple[int, ...]]:
        """Return the first of an endless sequence of random orders, as many as pass through at most
        so many sets."""
        orders, passed = list[tuple[int, ...]](), set[int]()
        for order in self.draw(max(most_sets, 1), seed):
            passed |= set(passing(order))
            if len(passed) > most_sets:
                break
            orders.append(order)
        return orders


def passing(order: Sequence[int]) -> list[int]:
    """Return the sets that an order passes through, from the empty to the whole one."""
    sets = [0]
    for decision in order:
        sets.append(sets[-1] | 1 << decision)
    return sets
