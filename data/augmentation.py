"""The augmentation options of a recipe. No torch here; `data.augment` has the pixels."""

import math
from dataclasses import dataclass

from utils.text import require_option

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and deviation of ImageNet's red, green and blue, from 0 to 1, as in the paper."""


@dataclass(frozen=True)
class Augmentation:
    """The part of a training recipe that changes images. Defaults: the paper's Table 5 and its
    code's arguments.

    Zero switches a part off, `crop_scale` and `rand_augment_std` apart.

    Raises:
        ValueError: a value that no training can use, in one sentence that names its option.
    """

    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Area of the random crop as a share of the image (Szegedy et al., 2015)."""
    flip: float = 0.5
    """Probability of a horizontal flip (the paper's code)."""
    rand_augment_magnitude: float = 9.0
    """RandAugment's mean magnitude of 10 (Table 5); 0 switches it off."""
    rand_augment_std: float = 0.5
    """Deviation of that magnitude (Table 5)."""
    color_jitter: float = 0.4
    """Strength of colour jitter; as in the paper's code it acts only where RandAugment is off."""
    random_erasing: float = 0.25
    """Probability that a box is filled with noise (Table 5)."""
    mixup: float = 0.8
    """Alpha of mixup, which takes turns with cutmix (Table 5); 0 switches it off."""
    cutmix: float = 1.0
    """Alpha of cutmix (Table 5); 0 switches it off."""

    def __post_init__(self) -> None:
        low, high = self.crop_scale
        remedy = "give two rising shares above 0 and up to 1"
        require_option(self, "crop_scale", 0 < low <= high <= 1, remedy)
        for name in ("flip", "random_erasing"):
            remedy = "give a probability from 0 to 1"
            require_option(self, name, 0 <= getattr(self, name) <= 1, remedy)
        magnitude = self.rand_augment_magnitude
        require_option(self, "rand_augment_magnitude", 0 <= magnitude <= 10, "give 0 (off) to 10")
        for name in ("rand_augment_std", "color_jitter", "mixup", "cutmix"):
            require_option(self, name, 0 <= getattr(self, name) < math.inf, "give 0 or more")

    @property
    def jitter(self) -> float:
        """The colour jitter that is applied: timm leaves it out with RandAugment, so the paper's
        models saw none."""
        return 0.0 if self.rand_augment_magnitude else self.color_jitter

    @property
    def mixes(self) -> bool:
        """True if images of a batch are mixed with their neighbours."""
        return bool(self.mixup or self.cutmix)
