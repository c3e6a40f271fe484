"""Weight files: safetensors, and torch files of nothing but tensors. Nothing in a file is
executed."""

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

_WRAPPERS = ("model", "state_dict", "model_state")
"""Keys under which training codes put the weights; "model" is the ConvNeXt authors'."""


def read(path: Path) -> dict[str, Tensor]:
    """The tensors in a weight file, on the CPU, by name.

    Raises:
        ValueError: no such file, or it holds no weights that can be read without running code from
            it.
    """
    _require_file(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is no safetensors file ({error}): give the file as it was written"
        ) from None
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror or error}): give a file of weights"
        ) from None
    except Exception as error:  # an unpickler raises anything
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ValueError(
            f"{path} cannot be read as weights alone ({type(error).__name__}: {reason[:150]}): "
            "give a .safetensors "
            "file, or a torch file of tensors only"
        ) from None
    for key in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(v, Tensor) for v in content.values())
    ):
        raise ValueError(
            f'{path} holds no weights: give a dict of tensors, alone or under "model" or "state_dict"'
        )
    return {str(key): value for key, value in content.items()}


def sha256(path: Path) -> str:
    """Of the file's contents, in hex."""
    _require_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _require_file(path: Path) -> None:
    """A device might never end."""
    if not path.is_file():
        wrong = "are no file" if path.exists() else "do not exist"
        raise ValueError(f"the weights {path} {wrong}: give a .safetensors or a torch file")
