"""How a network is trained: every choice that can change the result, as data. No torch here."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, get_args

import tyro

from data.augmentation import Augmentation
from data.datasets import NAMES
from utils.text import require_option

Optimizer = Literal["adamw", "sgd"]
Schedule = Literal["cosine", "step"]
Init = Literal["he", "truncated-normal"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]

LARGEST = 4096
"""Largest side of an image, in pixels."""
_MOST = 1_000_000
"""Largest count of anything: more is a typing error."""


@dataclass(frozen=True)
class Recipe:
    """A training recipe. The defaults are the modern one of "A ConvNet for the 2020s", section 2.1
    and Table 5.

    Raises:
        ValueError: a value, or two values together, that no training can use.
    """

    epochs: int = 300
    """Passes over the training images (Table 5)."""
    batch_size: int = 4096
    """Images per optimizer update (Table 5)."""
    micro_batches: int = 1
    """Equal parts of a batch, computed one by one to fit in memory, or shared by processes
    (torchrun); batch norm sees one part at a time, as with the paper's --update_freq."""
    optimizer: Optimizer = "adamw"
    """adamw (Table 5; Loshchilov and Hutter, 2019) or sgd without Nesterov momentum, as ResNet-50
    was trained (He et al., 2016)."""
    lr: float = 4e-3
    """Highest learning rate, for `lr_batch` images per update (Table 5)."""
    lr_batch: int = 4096
    """The batch that `lr` is meant for: the rate is scaled in proportion to batch_size (Goyal et
    al., 2017)."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay rates of its two moments (Table 5)."""
    momentum: float = 0.9
    """SGD's momentum (He et al., 2016)."""
    weight_decay: float = 0.05
    """Decoupled for adamw, added to the gradient for sgd (Table 5)."""
    decay_all: bool = False
    """Decay biases and other one-dimensional parameters too (the paper's code: no; ResNet: yes)."""
    schedule: Schedule = "cosine"
    """After the warm-up: cosine to min_lr (Table 5; Loshchilov and Hutter, 2017), or a step by
    step_factor every step_epochs (He et al., 2016)."""
    warmup_epochs: int = 20
    """Epochs in which the learning rate rises linearly from 0 (Table 5)."""
    min_lr: float = 1e-6
    """Where the cosine ends, not scaled with the batch (the paper's code)."""
    step_epochs: int = 30
    """Epochs between two steps of the step schedule (He et al., 2016)."""
    step_factor: float = 0.1
    """Factor of a step (He et al., 2016)."""
    label_smoothing: float = 0.1
    """Share of the target that is spread over all classes (Table 5)."""
    drop_path: float = 0.1
    """Stochastic depth of the last block, rising linearly from 0 at the first (Table 5: 0.1 for T,
    0.5 for B)."""
    layer_scale: float | None = 1e-6
    """Initial value of the learned factor on each residual branch (Table 5); None for no factor."""
    init: Init = "truncated-normal"
    """Initial weights: truncated-normal 0.02 (Table 5) or he, as ResNet-50 had."""
    augmentation: Annotated[Augmentation, tyro.conf.arg(name="")] = Augmentation()
    """What happens to the images."""
    ema: float | None = None
    """Decay per update of a moving average of the weights, evaluated in their place; None for none
    (Table 5: off)."""

    def __post_init__(self) -> None:
        self._check_values()
        if not self.peak_lr < math.inf:
            raise ValueError(
                f"--lr is {self.lr:g}: with this --batch-size the rate is infinite, give a lower "
                "one"
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"--warmup-epochs is {self.warmup_epochs} and --epochs is {self.epochs}: the "
                "warm-up must end before the training does, give fewer --warmup-epochs or more "
                "--epochs"
            )
        if self.schedule == "cosine" and self.min_lr > self.peak_lr:
            raise ValueError(
                f"--min-lr is {self.min_lr:g} and the highest learning rate is {self.peak_lr:g} "
                "(lr x batch_size / lr_batch): give a --min-lr below it"
            )
        rows, rest = divmod(self.batch_size, self.micro_batches)
        parts = f"--micro-batches is {self.micro_batches} and --batch-size is {self.batch_size}"
        if rest:
            raise ValueError(f"{parts}: give --micro-batches that divide the batch")
        if self.micro_batches > 1 and self.augmentation.mixes and rows % 2:
            raise ValueError(
                f"{parts}, which makes parts of {rows} images: mixing pairs neighbors, give parts "
                "of an even number, or switch --mixup and --cutmix off"
            )

    def _check_values(self) -> None:
        """Check each field by itself."""

        def require(names: str, holds: Callable[[Any], bool], remedy: str) -> None:
            for name in names.split():
                require_option(self, name, holds(getattr(self, name)), remedy)

        counts = "epochs batch_size micro_batches lr_batch step_epochs"
        require(counts, lambda n: 1 <= n <= _MOST, f"give 1 to {_MOST:,}")
        require("lr step_factor", lambda x: 0 < x < math.inf, "give a number above 0")
        rates = "min_lr weight_decay warmup_epochs"
        require(rates, lambda x: 0 <= x < math.inf, "give 0 or more")
        shares = "momentum label_smoothing drop_path"
        require(shares, lambda x: 0 <= x < 1, "give 0 or more and less than 1")
        pair = "give two numbers from 0 to below 1"
        require("betas", lambda betas: all(0 <= beta < 1 for beta in betas), pair)
        scale = "give a number above 0, or None"
        require("layer_scale", lambda x: x is None or 0 < x < math.inf, scale)
        decay = "give a number above 0 and below 1, such as 0.9999, or None"
        require("ema", lambda x: x is None or 0 < x < 1, decay)
        for name, allowed in (("optimizer", Optimizer), ("schedule", Schedule), ("init", Init)):
            choices = get_args(allowed)
            require(name, choices.__contains__, f"give {' or '.join(choices)}")

    def values(self) -> dict[str, Any]:
        """The values of all fields, with those of the augmentation."""
        flat: dict[str, Any] = {**vars(self), **vars(self.augmentation)}
        del flat["augmentation"]
        return flat

    def change(self, **values: Any) -> "Recipe":
        """A copy with other values of fields, its own or its augmentation's. Raises ValueError."""
        names = {field.name for field in fields(Augmentation)} & values.keys()
        images = {name: values.pop(name) for name in names}
        augmentation = replace(values.pop("augmentation", self.augmentation), **images)
        return replace(self, augmentation=augmentation, **values)

    @property
    def peak_lr(self) -> float:
        """The learning rate at the end of the warm-up."""
        return self.lr * self.batch_size / self.lr_batch

    def images_seen(self, images: int) -> int:
        """Training images that a run of so many `images` sees, repetitions counted."""
        return self.epochs * (images // self.batch_size) * self.batch_size


CLASSIC = Recipe(
    epochs=90,
    batch_size=256,
    optimizer="sgd",
    lr=0.1,
    lr_batch=256,
    weight_decay=1e-4,
    decay_all=True,
    schedule="step",
    warmup_epochs=0,
    label_smoothing=0.0,
    drop_path=0.0,
    layer_scale=None,
    init="he",
    augmentation=Augmentation(
        rand_augment_magnitude=0.0, color_jitter=0.0, random_erasing=0.0, mixup=0.0, cutmix=0.0
    ),
)
"""ResNet-50's recipe, for step 0 (He et al., 2016; torchvision)."""


@dataclass(frozen=True)
class InitialWeights:
    """The weight file that a study's networks start from, identified by its content."""

    name: str
    sha256: str
    key: str | None = None
    """Where the weights are in a file of several sets, such as "model_ema"."""


@dataclass(frozen=True)
class StudyConfig:
    """What all runs of a study share: all that can change a result, except the step and the seed.

    Raises:
        ValueError: a value that no study can use.
    """

    dataset: Annotated[
        str,
        tyro.conf.arg(help=f"{', '.join(NAMES)}, or PATH alone: your own images."),
    ] = "food101"
    """A name in `data.datasets`."""
    regime: str = "tiny"
    """Size of the networks: tiny (ResNet-50 to ConvNeXt-T), base (ResNet-200 to ConvNeXt-B), small
    (for 32 pixels) or mini."""
    resolution: int = 224
    """Side of the images that the network sees, in pixels."""
    precision: Precision = "auto"
    """auto is bf16 autocast on CUDA (fp16 where it has no bf16) and fp32 elsewhere."""
    recipe: Annotated[Recipe, tyro.conf.OmitArgPrefixes] = Recipe()
    """The modern recipe, which the steps take whole or in part."""
    classic: Recipe = CLASSIC
    """The recipe that a roadmap begins with; its epochs and batch follow the modern recipe's."""
    init_weights: Annotated[InitialWeights | None, tyro.conf.Suppress] = None
    """Start of every run in place of random weights; None is not part of the hash."""

    def __post_init__(self) -> None:
        if not 1 <= self.resolution <= LARGEST:
            raise ValueError(f"--resolution is {self.resolution}: give 1 to {LARGEST}")
        if self.precision not in get_args(Precision):
            raise ValueError(
                f"--precision is {self.precision!r}: give {', '.join(get_args(Precision))}"
            )


def follow(classic: Recipe, before: Recipe, after: Recipe) -> Recipe:
    """Change epochs and batch of `classic` in proportion to the modern recipe's change, `before`
    to `after`, so that a shorter or longer study stays a comparison of equals."""
    scale = after.epochs / before.epochs
    changed: dict[str, Any] = {}
    if scale != 1:
        changed["epochs"] = max(1, round(classic.epochs * scale))
        changed["step_epochs"] = max(1, round(classic.step_epochs * scale))
    if after.batch_size != before.batch_size:
        changed["batch_size"] = max(1, classic.batch_size * after.batch_size // before.batch_size)
        # Into parts of an even number of images, as the modern recipe's is.
        parts = 2 * after.micro_batches if after.micro_batches > 1 else 1
        changed["batch_size"] = max(parts, changed["batch_size"] // parts * parts)
    if after.micro_batches != before.micro_batches:
        changed["micro_batches"] = after.micro_batches
    return replace(classic, **changed)
