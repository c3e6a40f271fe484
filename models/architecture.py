"""What a network is: frozen dataclasses whose fields are the paper's design decisions. No torch here."""

from dataclasses import dataclass, fields
from typing import Literal, get_args

Stem = Literal["classic", "patchify"]
Activation = Literal["relu", "gelu"]
Norm = Literal["batch", "layer"]


@dataclass(frozen=True)
class Architecture:
    """One network between ResNet and ConvNeXt; section numbers are those of "A ConvNet for the 2020s".

    The defaults are ResNet-50. Every combination of flags is a valid network. Stochastic depth, layer scale and
    initial weights belong to the training recipe, not to the architecture.

    Raises:
        ValueError: a value that no network can have, in one sentence.
    """

    depths: tuple[int, ...] = (3, 4, 6, 3)
    """Residual blocks per stage (2.2, "changing stage compute ratio")."""
    width: int = 64
    """Channels of the stem and of the first stage's narrow end; doubles with every stage (2.3, "width")."""
    stem: Stem = "classic"
    """classic: a convolution and a 3x3 max pool; patchify: one convolution of patches that do not overlap (2.2,
    "changing stem to patchify"). `stem_stride` says how large they are."""
    stem_stride: int = 4
    """How many times smaller the stem's output is: 4 in the paper, 2 or 1 for small pictures. Patchify at stride s is
    an sxs convolution of stride s. Classic is, at 4, 7x7 stride 2 and the pool of stride 2; at 2, 3x3 stride 1 and the
    pool; at 1, 3x3 stride 1 alone (as He et al., 2016, section 4.2)."""
    depthwise: bool = False
    """The block's spatial convolution has one filter per channel (2.3, "ResNeXt-ify")."""
    inverted_bottleneck: bool = False
    """Block widths C, 4C, C instead of 4C, C, 4C (2.4)."""
    depthwise_first: bool = False
    """The spatial convolution comes before both 1x1 convolutions (2.5, "moving up depthwise conv layer")."""
    kernel_size: int = 3
    """Side of the block's spatial convolution, in pixels of its input (2.5, "increasing the kernel size")."""
    activation: Activation = "relu"
    """Which nonlinearity is used wherever there is one (2.6, "replacing ReLU with GELU")."""
    fewer_activations: bool = False
    """One activation per block, before its last 1x1 convolution (2.6, "fewer activation functions")."""
    fewer_norms: bool = False
    """One norm per residual branch, before its first 1x1 convolution (2.6, "fewer normalization layers")."""
    norm: Norm = "batch"
    """Which normalization is used wherever there is one (2.6, "substituting BN with LN")."""
    separate_downsampling: bool = False
    """A norm and a 2x2 stride-2 convolution between stages instead of strided blocks (2.6, "separate ...")."""
    num_classes: int = 1000
    """Outputs of the classifier."""

    def __post_init__(self) -> None:
        if not self.depths or any(depth < 1 for depth in self.depths):
            raise ValueError(f"depths are {self.depths}: give at least one block to each of one or more stages")
        if self.width < 1:
            raise ValueError(f"width is {self.width}: give at least 1 channel")
        _check_stem_stride(self.stem_stride)
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {self.kernel_size}: give an odd number of pixels, such as 3 or 7")
        if self.num_classes < 1:
            raise ValueError(f"num_classes is {self.num_classes}: give at least 1")
        for name, allowed in (("stem", Stem), ("activation", Activation), ("norm", Norm)):
            if getattr(self, name) not in get_args(allowed):
                choices = " or ".join(repr(choice) for choice in get_args(allowed))
                raise ValueError(f"{name} is {getattr(self, name)!r}: give {choices}")

    @property
    def total_stride(self) -> int:
        """How many times smaller than the picture the last stage's map is: the least side of a picture, in pixels."""
        return self.stem_stride * 2 ** (len(self.depths) - 1)

    def difference(self, other: "Architecture") -> dict[str, object]:
        """The fields of this architecture that differ from `other`'s, with this one's values."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != getattr(other, field.name)
        }


@dataclass(frozen=True)
class SwinArchitecture:
    """A Swin Transformer as torchvision builds it: the reference that the paper measures itself against.

    The defaults are Swin-T (Liu et al., ICCV 2021, section 3.3).

    Raises:
        ValueError: a `stem_stride` that no stem has, in one sentence.
    """

    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    window_size: int = 7
    stem_stride: int = 4
    """Side and stride of the stem's patches."""
    num_classes: int = 1000

    def __post_init__(self) -> None:
        _check_stem_stride(self.stem_stride)

    @property
    def total_stride(self) -> int:
        """How many times smaller than the picture the last stage's map is."""
        return self.stem_stride * 2 ** (len(self.depths) - 1)


def _check_stem_stride(stride: int) -> None:
    if stride not in (1, 2, 4):
        raise ValueError(f"stem_stride is {stride}: give 4 (the paper's), 2 or 1")
