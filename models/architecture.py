"""What a network is: frozen dataclasses whose fields are the paper's design decisions."""

from dataclasses import dataclass, fields

from models import parts

_INCEPTION_CHANNELS = 8
"""The fewest channels that an inception convolution can split."""


@dataclass(frozen=True)
class Architecture:
    """A network between ResNet and ConvNeXt; section numbers are of "A ConvNet for the 2020s".

    The defaults are ResNet-50. Every combination of flags is a valid network. Stochastic depth,
    layer scale and initial weights belong to the training recipe, not to the architecture.

    Raises:
        ValueError: a value that no network can have.
    """

    depths: tuple[int, ...] = (3, 4, 6, 3)
    """Residual blocks per stage (2.2, "changing stage compute ratio")."""
    width: int = 64
    """Channels of the stem; the block width of stage 1, doubled in each stage (2.3, "width")."""
    stem: str = "classic"
    """classic: a convolution and a 3x3 max pool; patchify: one convolution of non-overlapping
    patches (2.2, "changing stem to patchify"); overlap: two 3x3 convolutions (Xiao et al., 2021,
    arXiv 2106.14881; timm's "ols")."""
    stem_stride: int = 4
    """Total stride of the stem: 4 in the paper, 2 or 1 for small images. Patchify at stride s is an
    sxs convolution. Classic is 7x7 stride 2 and the pool at 4, 3x3 stride 1 and the pool at 2, and
    3x3 alone at 1 (He et al., 2016, section 4.2). Overlap has strides 2 and 2, 1 and 2, 1 and 1."""
    depthwise: bool = False
    """The block's spatial convolution has one filter per channel (2.3, "ResNeXt-ify")."""
    inverted_bottleneck: bool = False
    """Block widths C, 4C, C instead of 4C, C, 4C (2.4)."""
    depthwise_first: bool = False
    """The spatial convolution precedes both 1x1 convolutions (2.5, "moving up depthwise conv")."""
    kernel_size: int = 3
    """Side of the block's spatial convolution (2.5, "increasing the kernel size")."""
    activation: str = "relu"
    """Every nonlinearity: relu, gelu (2.6, "replacing ReLU with GELU") or star-relu (MetaFormer
    baselines, arXiv 2210.13452)."""
    fewer_activations: bool = False
    """One activation per block, before its last 1x1 convolution (2.6, "fewer activations")."""
    fewer_norms: bool = False
    """One norm per block, before its first 1x1 convolution (2.6, "fewer normalization layers")."""
    norm: str = "batch"
    """Every normalization: batch or layer (2.6, "substituting BN with LN")."""
    separate_downsampling: bool = False
    """A norm and a 2x2 stride-2 convolution between stages replace strided blocks (2.6)."""
    # Published after the paper. `norm`, `activation`, `spatial`, `before_last` and `branch_end`
    # also take a custom part by name (models/parts.py).
    spatial: str = "convolution"
    """The block's spatial convolution: whole, or inception (InceptionNeXt, arXiv 2303.16900): 3x3,
    1xk and kx1 on an eighth of the channels each, where k is `kernel_size` (11 in that paper)."""
    before_last: str = "none"
    """Between the activation and the last 1x1 convolution: nothing, or grn, global response
    normalization (ConvNeXt V2, arXiv 2301.00808, which omits layer scale from its recipe)."""
    branch_end: str = "none"
    """At the end of the branch: nothing, or se, squeeze and excitation (Hu et al., 2018)."""
    expansion: int | tuple[int, ...] = 4
    """Ratio of a block's wide end to its narrow one, for all stages or for each."""
    head: str = "linear"
    """linear: the classifier alone; mlp: a layer of three times the channels, activation and layer
    norm replace the final norm (InceptionNeXt)."""
    all_biases: bool = False
    """Convolutions have biases even where batch norm follows and cancels them (InceptionNeXt)."""
    num_classes: int = 1000
    """Outputs of the classifier."""

    def __post_init__(self) -> None:
        if not self.depths or any(depth < 1 for depth in self.depths):
            raise ValueError(
                f"depths are {self.depths}: give at least one block to each of one or more stages"
            )
        least = _INCEPTION_CHANNELS if self.spatial == "inception" else 1
        if self.width < least:
            use = " for inception convolutions" if least > 1 else ""
            raise ValueError(f"width is {self.width}: give at least {least}{use}")
        _check_stem_stride(self.stem_stride)
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size is {self.kernel_size}: give an odd number of pixels, such as 3 or 7"
            )
        if self.num_classes < 1:
            raise ValueError(f"num_classes is {self.num_classes}: give at least 1")
        if len(self.expansions) != len(self.depths) or min(self.expansions) < 1:
            raise ValueError(
                f"expansion is {self.expansion}: give a number from 1, or one for each of "
                f"{len(self.depths)} stages"
            )
        for field in parts.BUILT_IN:
            parts.check(field, getattr(self, field))

    @property
    def expansions(self) -> tuple[int, ...]:
        """`expansion` for each stage."""
        if isinstance(self.expansion, int):
            return (self.expansion,) * len(self.depths)
        return self.expansion

    @property
    def total_stride(self) -> int:
        """Ratio of the image's side to the last stage's; the smallest side of an image."""
        return self.stem_stride << (len(self.depths) - 1)

    def difference(self, other: "Architecture") -> dict[str, object]:
        """Return the fields that differ from `other`'s, with the values of this architecture."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value != getattr(other, name)}


@dataclass(frozen=True)
class SwinArchitecture:
    """A Swin Transformer as torchvision builds it, the paper's reference model.

    The defaults are Swin-T (Liu et al., ICCV 2021, section 3.3).

    Raises:
        ValueError: a `stem_stride` that no stem has.
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
        """Ratio of the image's side to the last stage's."""
        return self.stem_stride << (len(self.depths) - 1)


def _check_stem_stride(stride: int) -> None:
    if stride not in (1, 2, 4):
        raise ValueError(f"stem_stride is {stride}: give 4 (the paper's), 2 or 1")
