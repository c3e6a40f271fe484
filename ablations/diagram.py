"""A step drawn as text: its stem, block, downsampling and head, read off the network that the
builder builds."""

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from ablations.presets import Regime
from ablations.roadmap import Roadmap
from ablations.step import RecipeOf, Step
from models import SwinArchitecture

if TYPE_CHECKING:
    from torch import nn

_INDENT = "  "
_MARKS = {"equal": " ", "replace": "~", "insert": "+", "delete": "-"}


def lines(roadmap: Roadmap, regime: Regime, step: Step) -> list[str]:
    """The recipe of a step and the parts of its network from top to bottom, one a line."""
    architecture = roadmap.architecture(step, regime)
    recipe = _recipe(roadmap.recipe(step, regime))
    if isinstance(architecture, SwinArchitecture):
        return [*recipe, *_swin(architecture)]
    import torch

    from models.resnet import ResNet

    with torch.device("meta"):
        model = ResNet(architecture)
    stage = next((i for i, depth in enumerate(architecture.depths) if depth > 1), 0)
    block = list(model.stages[stage].children())[-1]
    drawn = [
        *recipe,
        f"blocks per stage: {', '.join(map(str, architecture.depths))}",
        "stem",
        *(_INDENT + _name(module) for module in model.stem),
        f"block (stage {stage + 1})",
        *_block(block),
    ]
    if len(architecture.depths) > 1:
        drawn.append("downsampling (into stage 2)")
        first = next(iter(model.stages[1].children()))
        if architecture.separate_downsampling:
            drawn += [_INDENT + _name(module) for module in first.children()]
        else:
            drawn += [f"{_INDENT}in its first block, which is:", *_block(first)]
    head = (model.norm, *model.mlp.children(), model.head)
    last = [_INDENT + _name(module) for module in head if _name(module)]
    return [*drawn, "head", f"{_INDENT}average pool", *last]


def _recipe(values: dict[str, Any]) -> list[str]:
    """The recipe that most fields have, and those that have another value."""
    most = max(RecipeOf, key=list(values.values()).count)
    name = {RecipeOf.MODERN: "modern", RecipeOf.CLASSIC: "ResNet's own"}[most]
    return [
        f"recipe: {name}",
        *(f"{_INDENT}{key}: {value}" for key, value in values.items() if value != most),
    ]


def _block(block: "nn.Module") -> list[str]:
    branch = [f"{_INDENT}| {_name(module)}" for module in block.get_submodule("branch").children()]
    projection = [_name(module) for module in block.get_submodule("shortcut").children()]
    after = _name(block.get_submodule("activation"))
    added = f"{_INDENT}+ shortcut{': ' + ', '.join(projection) if projection else ''}"
    return [*branch, added, *([_INDENT + after] if after else [])]


def _name(module: "nn.Module") -> str:
    from torch import nn

    from models import layers

    match module:
        case nn.Conv2d():
            k, groups = module.kernel_size[0], module.groups
            kind = "depthwise " if groups > 1 and groups == module.in_channels else ""
            stride = f", stride {module.stride[0]}" if module.stride[0] > 1 else ""
            return f"{kind}conv {k}x{k}, {module.in_channels} -> {module.out_channels}{stride}"
        case nn.Linear():
            return f"linear, {module.in_features} -> classes"
        case nn.BatchNorm2d():
            return "batch norm"
        case nn.LayerNorm():
            return "layer norm"
        case nn.GELU():
            return "GELU"
        case nn.ReLU():
            return "ReLU"
        case nn.MaxPool2d():
            return f"max pool {module.kernel_size}x{module.kernel_size}, stride {module.stride}"
        case nn.Identity():
            return ""
        case layers.GlobalResponseNorm():
            return "global response norm"
        case layers.SqueezeExcitation():
            return (
                f"squeeze and excitation, {module.conv1.in_channels} -> "
                f"{module.conv1.out_channels} and back"
            )
        case layers.InceptionConvolution():
            k, part = module.kernel_size, module.sizes[-1]
            stride = f", stride {module.stride[0]}" if module.stride[0] > 1 else ""
            return (
                f"inception conv 3x3, 1x{k}, {k}x1 on {part} of {module.channels} channels "
                f"each{stride}"
            )
        case layers.StarReLU():
            return "StarReLU"
    if any(True for _ in module.children()):
        return type(module).__name__
    return " ".join(repr(module).split()).removesuffix("()")


def _swin(a: SwinArchitecture) -> list[str]:
    width, window, patch = a.embed_dim, a.window_size, a.stem_stride
    return [
        f"blocks per stage: {', '.join(map(str, a.depths))}",
        "stem",
        f"{_INDENT}conv {patch}x{patch}, 3 -> {width}, stride {patch}",
        f"{_INDENT}layer norm",
        "block (stage 1)",
        f"{_INDENT}| layer norm",
        f"{_INDENT}| attention in {window}x{window} windows, {a.num_heads[0]} heads, shifted in "
        "every other block",
        f"{_INDENT}+ shortcut",
        f"{_INDENT}| layer norm",
        f"{_INDENT}| linear, {width} -> {4 * width}",
        f"{_INDENT}| GELU",
        f"{_INDENT}| linear, {4 * width} -> {width}",
        f"{_INDENT}+ shortcut",
        "downsampling (into stage 2)",
        f"{_INDENT}layer norm of 2x2 neighbours",
        f"{_INDENT}linear, {4 * width} -> {2 * width}",
        "head",
        f"{_INDENT}layer norm",
        f"{_INDENT}average pool",
        f"{_INDENT}linear, {width * 2 ** (len(a.depths) - 1)} -> classes",
    ]


def beside(before: Sequence[str], after: Sequence[str], headers: tuple[str, str]) -> str:
    """Two drawings side by side; between them ~ where a line changes, + where one comes in, - where
    one goes."""
    rows = []
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(
        None, before, after, autojunk=False
    ).get_opcodes():
        left, right = list(before[i1:i2]), list(after[j1:j2])
        for k in range(max(len(left), len(right))):
            pair = (left[k] if k < len(left) else "", right[k] if k < len(right) else "")
            mark = _MARKS[tag] if all(pair) else "+" if pair[1] else "-"
            rows.append((pair[0], mark, pair[1]))
    wide = max(len(headers[0]), *(len(row[0]) for row in rows))
    text = [
        f"{headers[0]:<{wide}}    {headers[1]}",
        f"{'-' * wide}    {'-' * max(len(row[2]) for row in rows)}",
    ]
    return (
        "\n".join(
            [*text, *(f"{left:<{wide}}  {mark} {right}".rstrip() for left, mark, right in rows)]
        )
        + "\n"
    )


def drawing(roadmap: Roadmap, regime: Regime, step: Step) -> str:
    """The step beside the one that it changes, or alone where there is none."""
    after = lines(roadmap, regime, step)
    if step.after is None:
        return "\n".join(after) + "\n"
    before = roadmap.step(step.after)
    return beside(lines(roadmap, regime, before), after, (before.name, step.name))


def show(roadmap: Roadmap, regime: Regime, step: Step, resolution: int = 224) -> str:
    """A step for a reader: what it changes, its drawing beside the step before, parameters and
    FLOPs per stage."""
    from models.complexity import stage_complexity

    number = "off the path" if step.number is None else f"step {step.number}"
    whole = {of: f"the {of} recipe" for of in RecipeOf if step.recipe == of.whole()}
    changes = {**step.changes(regime), **({} if whole else step.recipe_changes(regime))}
    flags = (
        ", ".join([*(f"{name}={value!r}" for name, value in changes.items()), *whole.values()])
        or "nothing"
    )
    title = (
        f"{step.name} ({number}, regime {regime.name}): {step.description}; {step.source}; "
        f"changes {flags}\n"
    )
    both = [step] if step.after is None else [roadmap.step(step.after), step]
    counted = [stage_complexity(roadmap.architecture(each, regime), resolution) for each in both]
    rows = []
    named = [{part.name: part for part in parts} for parts in counted]
    for name in max(named, key=len):  # a step may add a stage
        parts = [own.get(name) for own in named]
        cells = [
            cell
            for part in parts
            for cell in (
                (f"{part.params / 1e6:.3f} M", f"{part.flops / 1e9:.3f} G") if part else ("", "")
            )
        ]
        rows.append([name, *cells, *("~" if part != parts[0] else "" for part in parts[1:])])
    totals = [
        cell
        for parts in counted
        for cell in (
            f"{sum(p.params for p in parts) / 1e6:.3f} M",
            f"{sum(p.flops for p in parts) / 1e9:.3f} G",
        )
    ]
    rows.append(["all", *totals, *[""] * (len(both) - 1)])
    header = [
        "",
        *(cell for each in both for cell in (f"{each.name}: params", "FLOPs")),
        *[""] * (len(both) - 1),
    ]
    align = ("left", *["right"] * (2 * len(both)), *["left"] * (len(both) - 1))
    table = tabulate(rows, header, "simple", disable_numparse=True, colalign=align)
    note = (
        f"{resolution}x{resolution}, 1000 classes; FLOPs in the paper's convention; layer "
        "scale is left out."
    )
    return f"{title}\n{drawing(roadmap, regime, step)}\n{table}\n\n{note}\n"
