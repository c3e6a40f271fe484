"""What a network is: frozen dataclasses whose fields are the paper's design decisions. No torch
here."""

from dataclasses import dataclass, fields

from models import parts

_INCEPTION_CHANNELS = 8
"""An inception convolution has a part of one channel from here on."""


@dataclass(frozen=True)
class Architecture:
    """One network between ResNet and ConvNeXt; section numbers are those of "A ConvNet for the
    2020s".

    The defaults are ResNet-50. Every combination of flags is a valid network. Stochastic depth,
    layer scale and initial weights belong to the training recipe, not to the architecture.

    Raises:
        ValueError: a value that no network can have, in one sentence.
    """

    depths: tuple[int, ...] = (3, 4, 6, 3)
    """Residual blocks per stage (2.2, "changing stage compute ratio")."""
    width: int = 64
    """Channels of the stem and of the first stage's narrow end; doubles with every stage (2.3,
    "width")."""
    stem: str = "classic"
    """classic: a convolution and a 3x3 max pool; patchify: one convolution of patches that do not
    overlap (2.2, "changing stem to patchify"); overlap: two 3x3 convolutions (Xiao et al., 2021,
    arXiv 2106.14881; timm's "ols"). `stem_stride` says how large they are."""
    stem_stride: int = 4
    """How many times smaller the stem's output is: 4 in the paper, 2 or 1 for small images.
    Patchify at stride s is an sxs convolution of stride s. Classic is, at 4, 7x7 stride 2 and the
    pool of stride 2; at 2, 3x3 stride 1 and the pool; at 1, 3x3 stride 1 alone (as He et al., 2016,
    section 4.2). The two of overlap have strides 2 and 2, 1 and 2, or 1 and 1."""
    depthwise: bool = False
    """The block's spatial convolution has one filter per channel (2.3, "ResNeXt-ify")."""
    inverted_bottleneck: bool = False
    """Block widths C, 4C, C instead of 4C, C, 4C (2.4)."""
    depthwise_first: bool = False
    """The spatial convolution comes before both 1x1 convolutions (2.5, "moving up depthwise conv
    layer")."""
    kernel_size: int = 3
    """Side of the block's spatial convolution, in pixels of its input (2.5, "increasing the kernel
    size")."""
    activation: str = "relu"
    """Which nonlinearity is used wherever there is one: relu, gelu (2.6, "replacing ReLU with
    GELU") or star-relu (MetaFormer baselines, arXiv 2210.13452)."""
    fewer_activations: bool = False
    """One activation per block, before its last 1x1 convolution (2.6, "fewer activation
    functions")."""
    fewer_norms: bool = False
    """One norm per residual branch, before its first 1x1 convolution (2.6, "fewer normalization
    layers")."""
    norm: str = "batch"
    """Which normalization is used wherever there is one: batch or layer (2.6, "substituting BN with
    LN")."""
    separate_downsampling: bool = False
    """A norm and a 2x2 stride-2 convolution between stages instead of strided blocks (2.6,
    "separate ...")."""
    # What came after the paper. `norm`, `activation`, `spatial`, `before_last` and `branch_end`
    # also take the name of a part of your own: see models/parts.py.
    spatial: str = "convolution"
    """The block's spatial convolution: whole, or inception (InceptionNeXt, arXiv 2303.16900): 3x3,
    1xk and kx1 on an eighth of the channels each, k being `kernel_size` (theirs is 11)."""
    before_last: str = "none"
    """Between the activation and the last 1x1 convolution: nothing, or grn, global response
    normalization (ConvNeXt V2, arXiv 2301.00808, which leaves layer scale out of its recipe)."""
    branch_end: str = "none"
    """At the end of the residual branch: nothing, or se, squeeze and excitation (Hu et al.,
    2018)."""
    expansion: int | tuple[int, ...] = 4
    """How many times wider a block's wide end is than its narrow one, in all stages or in each of
    them."""
    head: str = "linear"
    """linear: the classifier alone; mlp: before it a layer of three times the channels, activation
    and layer norm, in place of the final norm (InceptionNeXt's)."""
    all_biases: bool = False
    """Convolutions have biases also where batch norm follows, which takes them away again
    (InceptionNeXt's code)."""
    num_classes: int = 1000
    """Outputs of the classifier."""

    def __post_init__(self) -> None:
        if not self.depths or any(depth < 1 for depth in self.depths):
            raise ValueError(
                f"depths are {self.depths}: give at least one block to each of one or more stages"
            )
        if self.width < 1:
            raise ValueError(f"width is {self.width}: give at least 1 channel")
        _check_stem_stride(self.stem_stride)
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size is {self.kernel_size}: give an odd number of pixels, such as 3 or 7"
            )
        if self.num_classes < 1:
            raise ValueError(f"num_classes is {self.num_classes}: give at least 1")
        if not isinstance(self.expansion, int) and len(self.expansion) != len(self.depths):
            raise ValueError(
                f"expansion is {self.expansion}: give one number, or one for each of "
                f"{len(self.depths)} stages"
            )
        if any(expansion < 1 for expansion in self.expansions):
            raise ValueError(f"expansion is {self.expansion}: give at least 1")
        if self.spatial == "inception" and self.width < _INCEPTION_CHANNELS:
            raise ValueError(
                f"width is {self.width}: give at least {_INCEPTION_CHANNELS} for inception "
                "convolutions"
            )
        for name in parts.BUILT_IN:
            parts.check(name, getattr(self, name))

    @property
    def expansions(self) -> tuple[int, ...]:
        """`expansion` for each stage."""
        return (
            (self.expansion,) * len(self.depths)
            if isinstance(self.expansion, int)
            else self.expansion
        )

    @property
    def total_stride(self) -> int:
        """How many times smaller than the image the last stage's map is: the least side of an
        image, in pixels."""
        return self.stem_stride << (len(self.depths) - 1)

    def difference(self, other: "Architecture") -> dict[str, object]:
        """The fields of this architecture that differ from `other`'s, with this one's values."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != getattr(other, field.name)
        }


@dataclass(frozen=True)
class SwinArchitecture:
    """A Swin Transformer as torchvision builds it: the reference that the paper measures itself
    against.

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
        """How many times smaller than the image the last stage's map is."""
        return self.stem_stride << (len(self.depths) - 1)


def _check_stem_stride(stride: int) -> None:
    if stride not in (1, 2, 4):
        raise ValueError(f"stem_stride is {stride}: give 4 (the paper's), 2 or 1")
