"""Orders of decisions: the sets that can come about, and how often each decision is the next one.

Decisions need others before them, so not every set can be reached and not every order is allowed. A
set is a whole number whose bit i says whether decision i is in it. The average effect of a decision
over all allowed orders is its Shapley value under precedence (Faigle and Kern, 1992).
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

_MOST_SETS = 50_000
"""Counting all orders takes a second or two for so many sets."""

Transition = tuple[int, int]
"""(a decision, the set that it is added to)."""


@dataclass(frozen=True)
class Orders:
    """Orders of n decisions; each is as likely as any other that its needs allow."""

    needs: tuple[int, ...]
    """Of each decision, the set of those that have to come before it."""

    @property
    def everything(self) -> int:
        return (1 << len(self.needs)) - 1

    @property
    def sets(self) -> tuple[int, ...]:
        """All sets that an order can pass through, the empty and the whole one among them."""
        return tuple(sorted(self._after))

    def following(self, done: int) -> Iterator[int]:
        """The decisions that can come next."""
        for decision, needed in enumerate(self.needs):
            if not done >> decision & 1 and needed & ~done == 0:
                yield decision

    @cached_property
    def _after(self) -> dict[int, int]:
        """Of each set, in how many orders the decisions that are not in it can follow.

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

    def exact(self) -> dict[Transition, float]:
        """The share of all orders in which a decision is added to just this set."""
        after = self._after
        before, total = {0: 1}, after[0]
        shares: dict[Transition, float] = {}
        for done in sorted(after, key=int.bit_count):
            for decision in self.following(done):
                larger = done | 1 << decision
                before[larger] = before.get(larger, 0) + before[done]
                shares[decision, done] = before[done] * after[larger] / total
        return shares

    def draw(self, count: int, seed: int = 0) -> list[tuple[int, ...]]:
        """So many orders at random, each as likely as any other."""
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
        """As many orders at random, the first of an endless sequence of draws, as pass through so
        many sets at the most."""
        orders, passed = list[tuple[int, ...]](), set[int]()
        for order in self.draw(max(most_sets, 1), seed):
            if len(passed | set(passing(order))) > most_sets:
                break
            passed |= set(passing(order))
            orders.append(order)
        return orders


def passing(order: Sequence[int]) -> list[int]:
    """The sets that an order passes through, from the empty to the whole one."""
    sets = [0]
    for decision in order:
        sets.append(sets[-1] | 1 << decision)
    return sets
