"""The architecture: one frozen dataclass of flags, one builder, FLOPs, weights of other libraries.

Importing this package does not import torch; `models.builder` and the other modules do.
"""

from models.architecture import Architecture, SwinArchitecture

__all__ = ["Architecture", "SwinArchitecture"]
