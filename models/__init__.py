"""The architecture: one frozen dataclass of flags, one builder, FLOPs, and weights to and from
other libraries.

Only the dataclasses are imported here, so that `import models` does not pay for torch; the builder
and everything that needs torch is imported on first use.
"""

from typing import TYPE_CHECKING

from models.architecture import Architecture, SwinArchitecture

if TYPE_CHECKING:
    from models.builder import build
    from models.resnet import ResNet

__all__ = ["Architecture", "ResNet", "SwinArchitecture", "build"]


def __getattr__(name: str) -> object:
    if name == "ResNet":
        from models.resnet import ResNet

        return ResNet
    if name == "build":
        from models.builder import build

        return build
    raise AttributeError(f"module 'models' has no attribute {name!r}")
