"""The architecture: one frozen dataclass of flags, one builder, FLOPs, and weights to and from other libraries.

Only the dataclasses are imported here, so that `import models` does not pay for torch; the builder and everything
that needs torch is imported on first use.
"""

from typing import TYPE_CHECKING

import wrapt

from models.architecture import Architecture, SwinArchitecture

if TYPE_CHECKING:
    from models.builder import build
    from models.resnet import ResNet

# Every step as a timm model, for whoever imports timm, before or after this; timm itself is not imported here.
wrapt.register_post_import_hook("ablations.timm_models:register", "timm")

__all__ = ["Architecture", "ResNet", "SwinArchitecture", "build"]


def __getattr__(name: str) -> object:
    if name == "ResNet":
        from models.resnet import ResNet

        return ResNet
    if name == "build":
        from models.builder import build

        return build
    raise AttributeError(f"module 'models' has no attribute {name!r}")
