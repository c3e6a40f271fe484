"""The model card: what was trained, on what, how well, and what it is not good for."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from ablations import PAPER, REGIMES, Regime, Step, get_regime
from inference.predictor import Predictor
from models import Architecture, SwinArchitecture
from utils import markdown
from utils.files import read_bytes
from utils.text import flat


def render(predictor: Predictor, form: str, difference: float, checked: str, license: str) -> str:
    """Markdown with the front matter of a model repository. Figures come from the run's
    result.json, if it has one.

    Raises:
        ValueError: one of the run's files is damaged.
    """
    run = predictor.folder.absolute()
    try:
        config, result = _read(run / "config.json"), _read(run / "result.json")
        study = _read(run.parents[1] / "study.json") if len(run.parents) > 1 else {}
        environment = markdown.environment(Path(__file__).parent / "templates")
        dataset: dict[str, Any] = study.get("dataset", {})
        regime = get_regime(study["config"]["regime"]) if "config" in study else None
        step = _step(predictor, [regime] if regime else list(REGIMES.values()))
        return environment.get_template("card.md.j2").render(
            predictor=predictor,
            form=form,
            difference=difference,
            checked=checked,
            license=license,
            result=result,
            recipe=flat(config.get("recipe", {})),
            dataset=dataset,
            regime=regime,
            step=step,
            swin=isinstance(predictor.architecture, SwinArchitecture),
            initial=study.get("config", {}).get("init_weights"),
            build=_in_torchvision(predictor.architecture),
            short=math.floor(predictor.view.resolution / 0.875),
            flops=_flops(result.get("gflops_paper_convention")),
        )
    except (
        jinja2.TemplateError,
        OSError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        ValueError,
    ):
        raise ValueError(
            f"what {run} says of itself is damaged: restore its config.json, its result.json and "
            "its study's "
            "study.json, or remove them"
        ) from None


def _step(predictor: Predictor, regimes: Sequence[Regime]) -> Step | None:
    """The paper's step that this network is, in one of the regimes: not one of the same name in
    another roadmap."""
    a = predictor.architecture
    step = next(
        (step for step in PAPER.steps if step.name == predictor.step and not step.reference), None
    )
    if step and any(PAPER.architecture(step, regime, a.num_classes) == a for regime in regimes):
        return step.describe(a)
    return None


def _in_torchvision(a: Architecture | SwinArchitecture) -> tuple[str, str]:
    """The import and the statements that build `model` with torchvision alone, where it has such a
    network."""
    if isinstance(a, SwinArchitecture):
        options = {
            "patch_size": [a.stem_stride] * 2,
            "embed_dim": a.embed_dim,
            "depths": list(a.depths),
            "num_heads": list(a.num_heads),
            "window_size": [a.window_size] * 2,
            "num_classes": a.num_classes,
        }
        listed = [
            "model = SwinTransformer(",
            *(f"    {name}={value}," for name, value in options.items()),
            ")",
        ]
        network = "\n".join(listed)
        return "from torchvision.models.swin_transformer import SwinTransformer", network
    if a.separate_downsampling:
        widths: list[int | None] = [*(a.width * 2**i for i in range(len(a.depths))), None]
        stages = [
            f"    CNBlockConfig({widths[i]}, {widths[i + 1]}, {depth}),"
            for i, depth in enumerate(a.depths)
        ]
        network = "\n".join(
            ["stages = [", *stages, "]", f"model = ConvNeXt(stages, num_classes={a.num_classes})"]
        )
        return "from torchvision.models.convnext import CNBlockConfig, ConvNeXt", network
    network = f"model = ResNet(Bottleneck, {list(a.depths)}, num_classes={a.num_classes})"
    return "from torchvision.models.resnet import Bottleneck, ResNet", network


def _flops(gflops: float | None) -> str:
    if gflops is None:
        return ""
    return f"{gflops:.3f} G" if gflops >= 0.1 else f"{1000 * gflops:.3g} M"


def _read(path: Path) -> dict[str, Any]:
    """The JSON object in a file of the run; nothing where there is no such file."""
    if not os.path.lexists(path):
        return {}
    content = json.loads(read_bytes(path))
    if not isinstance(content, dict):
        raise TypeError(f"{path.name} holds no JSON object")
    return content
