"""How a network is trained: every choice that can change the result, as data. No torch here."""

import math
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
"""Pixels of an image's side."""
_MOST = 1_000_000
"""Of anything that is counted: more is a slip of the keyboard."""


@dataclass(frozen=True)
class Recipe:
    """A training recipe. The defaults are the modern one of "A ConvNet for the 2020s", section 2.1
    and Table 5.

    Raises:
        ValueError: a value, or two values together, that no training can use, in one sentence.
    """

    epochs: int = 300
    """Passes over the training images (Table 5)."""
    batch_size: int = 4096
    """Images per optimizer update (Table 5)."""
    micro_batches: int = 1
    """Equal parts of a batch, worked through one by one to fit in memory, or shared by processes
    (torchrun); batch norm sees one part at a time.

    The paper's batch is accumulated likewise where it does not fit (its released commands'
    --update_freq).
    """
    optimizer: Optimizer = "adamw"
    """adamw (Table 5; Loshchilov and Hutter, 2019) or sgd without Nesterov's momentum, as ResNet-50
    was trained (He et al., 2016)."""
    lr: float = 4e-3
    """Highest learning rate, for `lr_batch` images per update (Table 5)."""
    lr_batch: int = 4096
    """The batch that `lr` is meant for: another batch_size scales the rate in proportion (Goyal et
    al., 2017)."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay rates of its two moments (Table 5)."""
    momentum: float = 0.9
    """SGD's momentum (He et al., 2016)."""
    weight_decay: float = 0.05
    """Decoupled for adamw, added to the gradient for sgd (Table 5)."""
    decay_all: bool = False
    """Whether biases and other parameters of one dimension are decayed too (the paper's code: no;
    ResNet: yes)."""
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
    """What a step multiplies the learning rate by (He et al., 2016)."""
    label_smoothing: float = 0.1
    """Share of the target that is spread over all classes (Table 5)."""
    drop_path: float = 0.1
    """Stochastic depth of the last block, rising linearly from 0 at the first (Table 5: 0.1 for T,
    0.5 for B)."""
    layer_scale: float | None = 1e-6
    """Initial value of the learnt factor on each residual branch (Table 5); None for no factor."""
    init: Init = "truncated-normal"
    """Initial weights: truncated-normal 0.02 (Table 5) or he, as ResNet-50 had."""
    augmentation: Annotated[Augmentation, tyro.conf.arg(name="")] = Augmentation()
    """What happens to the images."""
    ema: float | None = None
    """Decay per update of a moving average of the weights, evaluated in their place; None for none
    (Table 5: off)."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "micro_batches", "lr_batch", "step_epochs"):
            require_option(self, name, 1 <= getattr(self, name) <= _MOST, f"give 1 to {_MOST:,}")
        for name in ("lr", "step_factor"):
            require_option(self, name, 0 < getattr(self, name) < math.inf, "give a number above 0")
        for name in ("min_lr", "weight_decay", "warmup_epochs"):
            require_option(self, name, 0 <= getattr(self, name) < math.inf, "give 0 or more")
        for name in ("momentum", "label_smoothing", "drop_path"):
            require_option(
                self, name, 0 <= getattr(self, name) < 1, "give 0 or more and less than 1"
            )
        require_option(
            self,
            "betas",
            all(0 <= beta < 1 for beta in self.betas),
            "give two numbers from 0 to below 1",
        )
        if self.layer_scale is not None:
            require_option(
                self,
                "layer_scale",
                0 < self.layer_scale < math.inf,
                "give a number above 0, or None",
            )
        if self.ema is not None:
            require_option(
                self,
                "ema",
                0 < self.ema < 1,
                "give a number above 0 and below 1, such as 0.9999, or None",
            )
        for name, allowed in (("optimizer", Optimizer), ("schedule", Schedule), ("init", Init)):
            choices = get_args(allowed)
            require_option(
                self, name, getattr(self, name) in choices, f"give {' or '.join(choices)}"
            )
        if not self.peak_lr < math.inf:
            raise ValueError(
                f"--lr is {self.lr:g}: with this --batch-size the rate is infinite, give a lower "
                "one"
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"--warmup-epochs is {self.warmup_epochs} and --epochs is {self.epochs}: the "
                "warm-up must end before "
                "the training does, give fewer --warmup-epochs or more --epochs"
            )
        if self.schedule == "cosine" and self.min_lr > self.peak_lr:
            raise ValueError(
                f"--min-lr is {self.min_lr:g} and the highest learning rate is {self.peak_lr:g} "
                "(lr x batch_size / "
                "lr_batch): give a --min-lr below it"
            )
        if self.batch_size % self.micro_batches:
            raise ValueError(
                f"--micro-batches is {self.micro_batches}, which does not divide --batch-size "
                f"{self.batch_size}: give "
                "one that does"
            )
        if (
            self.micro_batches > 1
            and self.augmentation.mixes
            and self.batch_size // self.micro_batches % 2
        ):
            raise ValueError(
                f"--micro-batches is {self.micro_batches} and --batch-size is {self.batch_size}, "
                "which makes parts of "
                f"{self.batch_size // self.micro_batches} images: mixing pairs neighbours, give "
                "parts of an even "
                "number, or switch --mixup and --cutmix off"
            )

    def values(self) -> dict[str, Any]:
        """Every field's value, its own and its augmentation's."""
        flat: dict[str, Any] = {**vars(self), **vars(self.augmentation)}
        del flat["augmentation"]
        return flat

    def change(self, **values: Any) -> "Recipe":
        """With other values of fields, its own or its augmentation's by their names. Raises
        ValueError as `Recipe`."""
        images = {
            field.name: values.pop(field.name)
            for field in fields(Augmentation)
            if field.name in values
        }
        augmentation = replace(values.pop("augmentation", self.augmentation), **images)
        return replace(self, augmentation=augmentation, **values)

    @property
    def peak_lr(self) -> float:
        """The learning rate at the end of the warm-up."""
        return self.lr * self.batch_size / self.lr_batch

    def images_seen(self, images: int) -> int:
        """Training images that a run looks at if there are so many, each counted as often as it is
        seen."""
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
"""ResNet-50's own recipe, for step 0: SGD, batch 256, 90 epochs, steps by 0.1 (He et al., 2016;
torchvision)."""


@dataclass(frozen=True)
class InitialWeights:
    """The file that a study's networks start from, told by its contents: where it lies does not
    matter."""

    name: str
    sha256: str


@dataclass(frozen=True)
class StudyConfig:
    """What all runs of a study share: whatever can change a result, except the step and the seed.

    Raises:
        ValueError: a value that no study can use, in one sentence.
    """

    dataset: Annotated[
        str, tyro.conf.arg(help=f"{', '.join(NAMES)}; PATH holds your own, one folder a class.")
    ] = "food101"
    """As `data.datasets` knows it."""
    regime: str = "tiny"
    """Size of the networks: tiny (ResNet-50 to ConvNeXt-T), base (ResNet-200 to ConvNeXt-B), small
    (for 32 pixels) or pocket."""
    resolution: int = 224
    """Side of the images that the network sees, in pixels."""
    precision: Precision = "auto"
    """auto is bf16 autocast on CUDA (fp16 where it has no bf16) and fp32 elsewhere."""
    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = Recipe()
    """The modern recipe, which a roadmap's steps take whole or in parts."""
    classic: Recipe = CLASSIC
    """The recipe that a roadmap begins with. Unless set, its epochs and its batch follow the modern
    recipe's."""
    init_weights: Annotated[InitialWeights | None, tyro.conf.Suppress] = None
    """What every run starts from instead of random weights; None, the study proper, is not part of
    the hash."""

    def __post_init__(self) -> None:
        if not 1 <= self.resolution <= LARGEST:
            raise ValueError(f"--resolution is {self.resolution}: give 1 to {LARGEST}")
        if self.precision not in get_args(Precision):
            raise ValueError(
                f"--precision is {self.precision!r}: give {', '.join(get_args(Precision))}"
            )


def follow(classic: Recipe, before: Recipe, after: Recipe) -> Recipe:
    """`classic` with epochs and batch changed in the proportion in which the modern recipe was,
    `before` to `after`.

    So that a study made shorter or longer by one option stays a comparison of equals.
    """
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
