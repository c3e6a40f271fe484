"""A run for use elsewhere: safetensors, torchvision's naming, ONNX or torch.export.

Each export is compared with our network, and is a folder in the layout of a model repository: the
model, config.json with the preprocessing, and README.md, the model card.
"""

import inspect
import io
import json
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.nn import functional as F

from ablations import PAPER, REGIMES
from ablations.step import Step
from data.decode import to_rgb
from inference.output import find_images
from inference.predictor import Predictor, load, require
from models import Architecture, SwinArchitecture, weights
from models.builder import empty
from studies.study import read_json
from training.spec import ABOUT, WEIGHTS
from utils import markdown
from utils.files import sync_files, sync_folder, write_atomically
from utils.text import flat

FILES = {
    "safetensors": WEIGHTS,
    "torchvision": WEIGHTS,
    "onnx": "model.onnx",
    "torch-export": "model.pt2",
}
"""Formats, and the file that holds the model."""

_TOLERANCE = 1e-3
"""Largest difference of a logit that an export may have, relative to the largest logit."""

Network = Callable[[Tensor], Tensor]


def write(
    run: Path,
    form: str,
    out: Path,
    *,
    fold_layer_scale: bool = False,
    images: Sequence[Path] = (),
    license: str = "other",
) -> float:
    """Export the run to the new folder `out`; return the largest difference of a logit, relative to
    the largest logit.

    The exported model is read back from its file and run on `images`, or on noise if none are
    given, in batches of two sizes.

    Raises:
        ValueError: `out` exists, the run cannot be read, the format has no such network, or a
            library is missing.
        OSError: `out` cannot be written, or the exported model does not compute what ours does.
    """
    if form not in FILES:
        raise ValueError(f"there is no format {form!r}: choose {', '.join(FILES)}")
    if out.exists():
        raise ValueError(f"{out} exists already: give a new folder for the export")
    if form == "onnx":
        for module in ("onnx", "onnxscript", "onnxruntime"):
            require(module, module, "export")
    predictor = load(run, fold_layer_scale=fold_layer_scale)
    batches, checked = _batches(predictor, images)
    if form == "onnx" and isinstance(predictor.architecture, Architecture):
        batches.append(F.pad(batches[0], (0, 45, 0, 12)))  # other sides
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        exported = _WRITERS[form](predictor, batches[0], work / FILES[form])
        difference = _compare(predictor.model, exported, batches)
        if fold_layer_scale:
            difference = max(difference, _compare(load(run).model, predictor.model, batches))
        config = {"library_name": "convnext-ablations", "format": form, **_description(predictor)}
        (work / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        text = card(predictor, form, difference, checked, license)
        (work / "README.md").write_text(text, encoding="utf-8")
        work.chmod(0o755)  # mkdtemp and safetensors write for this user only
        for path in work.iterdir():
            path.chmod(0o644)
        sync_files(work)
        os.replace(work, out)
        sync_folder(out.parent)
    except OSError as error:
        if error.strerror is None:  # a message of our own
            raise
        raise OSError(
            f"the export {out} could not be written ({error.strerror}); nothing was left there"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return difference


def _batches(predictor: Predictor, images: Sequence[Path]) -> tuple[list[Tensor], str]:
    """Return batches of two sizes, of at most 8 images or of noise, and a word for the card."""
    files = find_images(images)[:8] if images else []
    side = predictor.view.resolution
    batch = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    if files:
        batch = predictor.prepare(files)
        batch = torch.cat([batch, batch.flip(3)])[: max(2, len(batch))]
    return [batch, batch[:1]], f"{len(files)} images" if files else "noise"


def _description(predictor: Predictor) -> dict[str, Any]:
    return {
        "step": predictor.step,
        "seed": predictor.seed,
        "architecture": asdict(predictor.architecture),
        "layer_scale": predictor.layer_scale,
        "custom_parts": predictor.custom_parts,
        "classes": predictor.classes,
        "preprocessing": asdict(predictor.view),
    }


def _compare(model: nn.Module, exported: Network, batches: Sequence[Tensor]) -> float:
    """Return the largest relative difference of a logit."""
    worst = 0.0
    for batch in batches:
        with torch.inference_mode():
            ours, theirs = model(batch), exported(batch)
        worst = max(worst, float((ours - theirs).abs().max() / ours.abs().max().clamp_min(1e-12)))
    if not worst <= _TOLERANCE:
        raise OSError(
            f"the exported model differs from ours by {worst:.2g} of the largest logit; nothing "
            "was written"
        )
    return worst


def _safetensors(predictor: Predictor, images: Tensor, path: Path) -> Network:
    state = {key: value.contiguous() for key, value in predictor.model.state_dict().items()}
    about = {"format": "pt", ABOUT: json.dumps(_description(predictor))}
    write_atomically(path, to_safetensors(state, about))
    return load(path.parent).model


def _torchvision(predictor: Predictor, images: Tensor, path: Path) -> Network:
    state = weights.export(predictor.model, "torchvision")
    state = {key: value.contiguous() for key, value in state.items()}
    theirs = _torchvision_network(predictor.architecture)
    write_atomically(path, to_safetensors(state, {"format": "pt"}))
    theirs.load_state_dict(load_file(path))
    return theirs.eval()


def _torchvision_network(a: Architecture | SwinArchitecture) -> nn.Module:
    """Build torchvision's own network, which need not be one of its named sizes."""
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt
    from torchvision.models.resnet import Bottleneck, ResNet

    model: nn.Module
    if isinstance(a, SwinArchitecture):
        model = empty(a)
    elif a.separate_downsampling:
        widths = [a.width * 2**stage for stage in range(len(a.depths))]
        settings = [CNBlockConfig(w, 2 * w, n) for w, n in zip(widths, a.depths, strict=True)]
        settings[-1].out_channels = None
        model = ConvNeXt(settings, num_classes=a.num_classes)
    elif a.width == 64 and len(a.depths) == 4:
        model = ResNet(Bottleneck, list(a.depths), num_classes=a.num_classes)
    else:
        raise ValueError(
            f"torchvision's ResNet has a width of 64 and 4 stages, and this one has {a.width} and "
            f"{len(a.depths)}: choose the format safetensors or onnx"
        )
    return model


def _torch_export(predictor: Predictor, images: Tensor, path: Path) -> Network:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dims = {0: torch.export.Dim("batch", min=1, max=4096)}
        program = torch.export.export(
            predictor.model, (images[:2].contiguous(),), dynamic_shapes=(dims,)
        )
        content = io.BytesIO()
        torch.export.save(program, content)
        write_atomically(path, content.getvalue())
        return torch.export.load(path).module()


def _onnx(predictor: Predictor, images: Tensor, path: Path) -> Network:
    runtime = require("onnxruntime", "onnxruntime", "export")
    a, sample, axes = predictor.architecture, images[:2].contiguous(), {0: "batch"}
    if isinstance(a, Architecture):
        # A last map of one place would be taken for one of any image.
        side = max(sample.shape[2], 2 * a.stem_stride * 2 ** (len(a.depths) - 1))
        sample, axes = torch.zeros(2, 3, side, side), {0: "batch", 2: "height", 3: "width"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            predictor.model,
            (sample,),
            dynamic_shapes=(dict.fromkeys(axes, torch.export.Dim.DYNAMIC),),
        )
        torch.onnx.export(
            program,
            (sample,),
            path,
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=(axes,),
            external_data=False,
            verbose=False,
        )
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def exported(batch: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"images": batch.contiguous().numpy()})[0])

    return exported


_WRITERS: dict[str, Callable[[Predictor, Tensor, Path], Network]] = {
    "safetensors": _safetensors,
    "torchvision": _torchvision,
    "onnx": _onnx,
    "torch-export": _torch_export,
}


def card(predictor: Predictor, form: str, difference: float, checked: str, license: str) -> str:
    """Return the model card: what was trained, on which data, how well, and its limits.

    Raises:
        ValueError: one of the run's files is damaged.
    """
    run = predictor.folder.absolute()
    try:
        config, result = _read(run / "config.json"), _read(run / "result.json")
        study = _read(run.parents[1] / "study.json") if len(run.parents) > 1 else {}
        environment = markdown.environment(Path(__file__).parent / "templates")
        return environment.get_template("card.md.j2").render(
            predictor=predictor,
            family=_family(predictor.architecture),
            form=form,
            difference=difference,
            checked=checked,
            license=license,
            result=result,
            recipe=flat(config.get("recipe", {})),
            dataset=study.get("dataset", {}),
            initial=study.get("config", {}).get("init_weights"),
            step=_step(predictor),
            short=math.floor(predictor.view.resolution / 0.875),
            to_rgb=inspect.getsource(to_rgb),
        )
    except (jinja2.TemplateError, OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"the records of {run} are damaged ({error}): restore its config.json, its result.json "
            "and its study's study.json, or remove them"
        ) from None


def _family(a: Architecture | SwinArchitecture) -> str:
    if isinstance(a, SwinArchitecture):
        return "swin"
    return "convnext" if a.separate_downsampling else "resnet"


def _step(predictor: Predictor) -> Step | None:
    """Return the paper's step that this network is, in any regime; None for any other network."""
    a = predictor.architecture
    for regime in REGIMES.values():
        for step in PAPER.steps_in(regime):
            same = step.name == predictor.step and not step.reference
            if same and PAPER.architecture(step, regime, a.num_classes) == a:
                return step.describe(a)
    return None


def _read(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file of the run; empty if there is no such file."""
    return read_json(path) if os.path.lexists(path) else {}
