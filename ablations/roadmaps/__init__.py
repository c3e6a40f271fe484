"""The roadmaps that come with the suite, a file each."""

from ablations.roadmaps.paper import PAPER

__all__ = ["PAPER"]
