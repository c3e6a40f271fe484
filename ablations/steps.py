"""The roadmap from ResNet to ConvNeXt as data: step N is the step before it and one named change."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class Step:
    """One row of the study. Section numbers are those of "A ConvNet for the 2020s"."""

    number: int | None
    """Place on the path; None for rows beside it."""
    name: str
    sentence: str
    """What changes, in a few words."""
    section: str
    """Where the paper describes it."""
    after: str | None
    """Name of the step that this one changes, and is compared with; None where there is none."""
    changes: Mapping[str, object] = field(default_factory=dict)
    """Fields of `Architecture` and their new values; the values that differ by regime are in `Regime.values`."""
    classic_recipe: bool = False
    """Trained with ResNet's own recipe instead of the modern one."""
    released_with_layer_scale: bool = False
    """The paper's authors released this network (ConvNeXt): its published size includes the recipe's layer scale."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "changes", MappingProxyType(dict(self.changes)))


def _path() -> tuple[Step, ...]:
    path: tuple[tuple[str, str, str, dict[str, object]], ...] = (
        ("baseline", "ResNet and its classic recipe", "2, ResNet-50", {}),
        ("training-recipe", "the modern training recipe", "2.1", {}),
        ("stage-ratio", "stage compute ratio as in Swin", "2.2", {}),
        ("patchify-stem", "4x4 stride-4 stem", "2.2", {"stem": "patchify"}),
        ("depthwise", "depthwise 3x3 convolution", "2.3", {"depthwise": True}),
        ("width", "width as in Swin", "2.3", {}),
        ("inverted-bottleneck", "block widths C, 4C, C", "2.4", {"inverted_bottleneck": True}),
        ("depthwise-first", "depthwise convolution moved up", "2.5", {"depthwise_first": True}),
        ("kernel-7", "kernel 7x7", "2.5", {"kernel_size": 7}),
        ("gelu", "ReLU to GELU", "2.6", {"activation": "gelu"}),
        ("fewer-activations", "one activation per block", "2.6", {"fewer_activations": True}),
        ("fewer-norms", "one norm per block", "2.6", {"fewer_norms": True}),
        ("layer-norm", "batch norm to layer norm", "2.6", {"norm": "layer"}),
        ("separate-downsampling", "norm and 2x2 convolution between stages", "2.6", {"separate_downsampling": True}),
    )
    steps: list[Step] = []
    for number, (name, sentence, section, changes) in enumerate(path):
        before = steps[-1].name if steps else None
        step = Step(
            number, name, sentence, section, before, changes,
            classic_recipe=number == 0, released_with_layer_scale=number == len(path) - 1,
        )  # fmt: skip
        steps.append(step)
    return tuple(steps)


def _with_kernel_sizes(path: tuple[Step, ...]) -> tuple[Step, ...]:
    """Put the kernel sizes that the paper tried and did not keep around the one it kept, in order of size."""
    place = next(i for i, step in enumerate(path) if step.name == "kernel-7")
    five, nine, eleven = (
        Step(None, f"kernel-{k}", f"kernel {k}x{k}, off the path", "2.5", "depthwise-first", {"kernel_size": k})
        for k in (5, 9, 11)
    )
    return (*path[:place], five, path[place], nine, eleven, *path[place + 1 :])


STEPS: tuple[Step, ...] = _with_kernel_sizes(_path())
"""The 17 rows of the paper's tables in the paper's order: 14 numbered steps and three kernel sizes off the path."""
