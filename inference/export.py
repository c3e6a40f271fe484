"""A run for the world outside: safetensors, torchvision's naming, ONNX or torch.export, each
checked against ours.

Every export is a folder in the layout of a model repository: the model, config.json, preprocessing
included, and README.md, the model card. `huggingface_hub.upload_folder` or `git push` publishes it
as it is.
"""

import io
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from inference import card
from inference.optional import require
from inference.output import find_images
from inference.predictor import Predictor, load
from models import Architecture, weights
from models.builder import empty
from training.spec import ABOUT, WEIGHTS
from utils.files import sync_files, sync_folder, write_atomically

Format = Literal["safetensors", "torchvision", "onnx", "torch-export"]
FILES: dict[Format, str] = {
    "safetensors": WEIGHTS,
    "torchvision": WEIGHTS,
    "onnx": "model.onnx",
    "torch-export": "model.pt2",
}

_TOLERANCE = 1e-3
"""Largest difference of a logit that an export may show, as a share of the largest logit of the
images."""


def write(
    run: Path,
    form: str,
    out: Path,
    *,
    fold_layer_scale: bool = False,
    images: Sequence[Path] = (),
    license: str = "other",
) -> float:
    """Export the run into the new folder `out`, and return the largest difference of a logit,
    relative to the largest.

    The exported model is read back from its file and run on `images` (at least two, in batches of
    two sizes), or on noise of the run's resolution where none are given.

    Raises:
        ValueError: `out` exists, the run cannot be read, the format has no such network, or a
            library is missing.
        OSError: `out` cannot be written, or the exported model does not compute what ours does.
    """
    check(run, form, out)
    predictor = load(run, fold_layer_scale=fold_layer_scale)
    found = find_images(images)[:8] if images else []
    batch = predictor.prepare(found) if found else _noise(predictor, 3)
    if len(batch) == 1:
        batch = torch.cat([batch, batch.flip(3)])
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        difference = _WRITERS[form](predictor, batch, work)
        if fold_layer_scale:
            difference = max(difference, _compare(load(run), predictor.model, batch))
        config = _config(predictor, form)
        (work / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        checked = f"{len(found)} images" if found else "noise"
        (work / "README.md").write_text(
            card.render(predictor, form, difference, checked, license), encoding="utf-8"
        )
        for path, mode in ((work, 0o755), *((inside, 0o644) for inside in work.iterdir())):
            path.chmod(mode)  # made for this user's eyes alone, by mkdtemp and by safetensors
        sync_files(work)
        os.replace(work, out)
        sync_folder(out.parent)
    except OSError as error:
        if error.strerror is None:  # a sentence already
            raise
        raise OSError(
            f"the export {out} could not be written ({error.strerror}); nothing was left there"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return difference


def check(run: Path, form: str, out: Path) -> None:
    """Raise ValueError for what can be refused before anything is loaded."""
    if form not in get_args(Format):
        raise ValueError(f"there is no format {form!r}: choose {', '.join(get_args(Format))}")
    if out.exists():
        raise ValueError(f"{out} exists already: give a new folder for the export")
    if not run.is_dir():
        raise ValueError(
            f"there is no run {run}: give a run's folder, such as runs/food101/depthwise/seed-0"
        )
    if form == "onnx":
        for module in ("onnx", "onnxscript", "onnxruntime"):
            require(module, module, "export")


def _noise(predictor: Predictor, count: int) -> Tensor:
    size = predictor.view.resolution
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def _config(predictor: Predictor, form: str) -> dict[str, Any]:
    return {
        "library_name": "convnext-ablations",
        "format": form,
        "step": predictor.step,
        "architecture": asdict(predictor.architecture),
        "layer_scale": predictor.layer_scale,
        "classes": predictor.classes,
        "preprocessing": {
            **asdict(predictor.view),
            "view": "short side down to short_side, then to resolution / 0.875, each bicubic and "
            "antialiased, then the "
            "central square",
        },
    }


def _compare(
    predictor: Predictor, exported: Callable[[Tensor], Tensor] | nn.Module, images: Tensor
) -> float:
    """The largest difference of a logit over batches of two sizes, relative to the largest
    logit."""
    worst = 0.0
    for batch in (images, images[:1]):
        with torch.inference_mode():
            ours, theirs = predictor.model(batch), exported(batch)
        worst = max(worst, float((ours - theirs).abs().max() / ours.abs().max().clamp_min(1e-12)))
    if not worst <= _TOLERANCE:
        raise OSError(
            f"the exported model differs from ours by {worst:.2g} of the largest logit; nothing "
            "was written"
        )
    return worst


def _safetensors(predictor: Predictor, images: Tensor, folder: Path) -> float:
    config = _config(predictor, "safetensors")
    what = {
        name: config[name] for name in ("architecture", "layer_scale", "classes", "preprocessing")
    }
    about = {"step": predictor.step, "seed": predictor.seed, **what}
    state = {key: value.contiguous() for key, value in predictor.model.state_dict().items()}
    # Through our own writing: the libraries report a full disk by errors of their own.
    write_atomically(
        folder / WEIGHTS, to_safetensors(state, {"format": "pt", ABOUT: json.dumps(about)})
    )
    return _compare(predictor, load(folder).model, images)


def _torchvision(predictor: Predictor, images: Tensor, folder: Path) -> float:
    state = {
        key: value.contiguous()
        for key, value in weights.export(predictor.model, "torchvision").items()
    }
    write_atomically(folder / WEIGHTS, to_safetensors(state, {"format": "pt"}))
    theirs = _torchvision_network(predictor)
    theirs.load_state_dict(load_file(folder / WEIGHTS))
    return _compare(predictor, theirs.eval(), images)


def _torchvision_network(predictor: Predictor) -> nn.Module:
    """torchvision's own network of this architecture, which need not be one of its named sizes."""
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt
    from torchvision.models.resnet import Bottleneck, ResNet

    a = predictor.architecture
    model: nn.Module
    if not isinstance(a, Architecture):
        return empty(a)
    if a.separate_downsampling:
        widths = [a.width * 2**i for i in range(len(a.depths))]
        nexts = [*widths[1:], None]
        settings = [
            CNBlockConfig(w, n, depth) for w, n, depth in zip(widths, nexts, a.depths, strict=True)
        ]
        model = ConvNeXt(settings, num_classes=a.num_classes)
        return model
    if a.width != 64 or len(a.depths) != 4:
        raise ValueError(
            f"torchvision's ResNet has a width of 64 and 4 stages, and {predictor.step} has "
            f"{a.width} and "
            f"{len(a.depths)}: choose the format safetensors or onnx"
        )
    model = ResNet(Bottleneck, list(a.depths), num_classes=a.num_classes)
    return model


def _program(predictor: Predictor, images: Tensor) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1, max=4096)
    sample = images[:2].contiguous()
    return torch.export.export(predictor.model, (sample,), dynamic_shapes=({0: batch},))


def _torch_export(predictor: Predictor, images: Tensor, folder: Path) -> float:
    path = folder / FILES["torch-export"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = io.BytesIO()
        torch.export.save(_program(predictor, images), program)
        write_atomically(path, program.getvalue())
        exported = torch.export.load(path).module()
    return _compare(predictor, exported, images)


def _onnx(predictor: Predictor, images: Tensor, folder: Path) -> float:
    runtime = require("onnxruntime", "onnxruntime", "export")
    path = folder / FILES["onnx"]
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _program(predictor, images),
                (images[:2].contiguous(),),
                path,
                dynamo=True,
                input_names=["images"],
                output_names=["logits"],
                external_data=False,
                verbose=False,
            )
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def exported(batch: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"images": batch.contiguous().numpy()})[0])

    return _compare(predictor, exported, images)


_WRITERS: dict[str, Callable[[Predictor, Tensor, Path], float]] = {
    "safetensors": _safetensors,
    "torchvision": _torchvision,
    "onnx": _onnx,
    "torch-export": _torch_export,
}
