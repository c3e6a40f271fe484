"""An emulated device for tests: tensors say `emulated:0` and compute on the CPU.

As on a GPU, tensors of two devices cannot meet, a copy may leave the host ahead of the device, and
reading a value waits for it: `waits` counts those. `fits` is how many images may be there at once
before memory runs out.
"""

import traceback
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

aten = torch.ops.aten
_COPIES = {aten.copy_.default, aten._to_copy.default, aten.index_put_.default, aten.index.Tensor}
_READS = {aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default}
_ROOT = Path(__file__).parents[2]


class Emulation:
    waits: ClassVar[Counter[str]] = Counter()
    fits: float = float("inf")
    message = "out of memory"


def _wait(why: str) -> None:
    frames = [
        f for f in traceback.extract_stack() if f.filename.startswith(str(_ROOT / "training"))
    ]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "test"
    Emulation.waits[f"{why} in {where}"] += 1


class _Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


_setup_privateuseone_for_python_backend("emulated", _Backend())
DEVICE = torch.device("emulated", 0)


class EmulatedTensor(torch.Tensor):
    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "EmulatedTensor":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        made.inner = inner
        return made

    def __repr__(self, **_: Any) -> str:
        return f"EmulatedTensor({self.inner})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copy = EmulatedTensor(self.detach().inner.clone())
        made = (
            torch.nn.Parameter(copy, self.requires_grad)
            if isinstance(self, torch.nn.Parameter)
            else copy
        )
        memo[id(self)] = made
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


def _compute(func: Any, args: Any, kwargs: Any) -> Any:
    flat, spec = pytree.tree_flatten((args, kwargs))
    here = [each for each in flat if isinstance(each, EmulatedTensor)]
    host = [
        each for each in flat if isinstance(each, Tensor) and not isinstance(each, EmulatedTensor)
    ]
    if here and any(each.dim() for each in host) and func not in _COPIES:
        raise RuntimeError(f"Expected all tensors to be on the same device: {func}")
    if func in _READS:
        _wait(str(func))
    target = kwargs.get("device", DEVICE if here else None)
    if func is aten.copy_.default and not (len(args) > 2 and args[2]) and host:
        _wait("copy")
    if (
        func is aten._to_copy.default
        and torch.device(target).type == "cpu"
        and not kwargs.get("non_blocking")
    ):
        _wait("copy")
    inner = [each.inner if isinstance(each, EmulatedTensor) else each for each in flat]
    inner_args, inner_kwargs = pytree.tree_unflatten(inner, spec)
    if "device" in inner_kwargs:
        inner_kwargs = {**inner_kwargs, "device": torch.device("cpu")}
    result = func(*inner_args, **inner_kwargs)
    known = {id(each.inner): each for each in here} | {id(each): each for each in host}

    def back(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) in known:
            return known[id(value)]
        if target is not None and torch.device(target).type != "cpu":
            if value.shape[1:] == (3, 32, 32) and len(value) > Emulation.fits:
                raise RuntimeError(Emulation.message)
            return EmulatedTensor(value)
        return value

    return pytree.tree_map(back, result)


_LIBRARY = torch.library.Library("_", "IMPL")
_LIBRARY.fallback(lambda func, *args, **kwargs: _compute(func, args, kwargs), "PrivateUse1")
