"""Draw a step as text: its stem, block, downsampling and head, read off the network that the
builder builds."""

import difflib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from tabulate import tabulate
from torch import nn

from ablations.presets import Regime
from ablations.roadmap import Roadmap
from ablations.step import RecipeOf, Step
from models import SwinArchitecture, layers
from models.complexity import stage_complexity
from models.resnet import ResNet

_INDENT = "  "


def lines(roadmap: Roadmap, regime: Regime, step: Step) -> list[str]:
    """Return the recipe of a step and the parts of its network from top to bottom, one a line."""
    a = roadmap.architecture(step, regime)
    recipe = _recipe(roadmap.recipe(step, regime))
    depths = f"blocks per stage: {', '.join(map(str, a.depths))}"
    if isinstance(a, SwinArchitecture):
        return [*recipe, depths, *_swin(a)]
    with torch.device("meta"):
        model = ResNet(a)
    stage = next((i for i, depth in enumerate(a.depths) if depth > 1), 0)
    block = list(model.stages[stage].children())[-1]
    downsampling: list[str] = []
    if len(a.depths) > 1:
        first = next(iter(model.stages[1].children()))
        downsampling = (
            ["downsampling (into stage 2)", *_named(first.children())]
            if a.separate_downsampling
            else [
                "downsampling (into stage 2)",
                f"{_INDENT}in its first block, which is:",
                *_block(first),
            ]
        )
    return [
        *recipe,
        depths,
        "stem",
        *_named(model.stem),
        f"block (stage {stage + 1})",
        *_block(block),
        *downsampling,
        "head",
        f"{_INDENT}average pool",
        *_named([model.norm, *model.mlp.children(), model.head]),
    ]


def _recipe(values: dict[str, Any]) -> list[str]:
    """Return the recipe that most fields have, and the fields with another value."""
    most = max(RecipeOf, key=list(values.values()).count)
    name = {RecipeOf.MODERN: "modern", RecipeOf.CLASSIC: "ResNet's own"}[most]
    others = (f"{_INDENT}{key}: {value}" for key, value in values.items() if value != most)
    return [f"recipe: {name}", *others]


def _block(block: nn.Module) -> list[str]:
    branch = [f"{_INDENT}| {_name(module)}" for module in block.get_submodule("branch").children()]
    projection = ", ".join(map(_name, block.get_submodule("shortcut").children()))
    shortcut = f"{_INDENT}+ shortcut" + (f": {projection}" if projection else "")
    return [*branch, shortcut, *_named([block.get_submodule("activation")])]


def _named(modules: Any) -> list[str]:
    return [_INDENT + name for module in modules if (name := _name(module))]


def _convolution(module: nn.Conv2d) -> str:
    k, groups = module.kernel_size[0], module.groups
    kind = "depthwise " if groups > 1 and groups == module.in_channels else ""
    return f"{kind}conv {k}x{k}, {module.in_channels} -> {module.out_channels}{_stride(module)}"


def _inception(module: layers.InceptionConvolution) -> str:
    k, part = module.kernel_size, module.sizes[-1]
    return (
        f"inception conv 3x3, 1x{k}, {k}x1 on {part} of {module.channels} channels each"
        f"{_stride(module)}"
    )


def _stride(module: Any) -> str:
    return f", stride {module.stride[0]}" if module.stride[0] > 1 else ""


_NAMES: dict[type[nn.Module], Callable[[Any], str]] = {
    nn.Conv2d: _convolution,
    nn.Linear: lambda module: f"linear, {module.in_features} -> classes",
    nn.BatchNorm2d: lambda _: "batch norm",
    nn.LayerNorm: lambda _: "layer norm",
    nn.GELU: lambda _: "GELU",
    nn.ReLU: lambda _: "ReLU",
    nn.MaxPool2d: lambda module: (
        f"max pool {module.kernel_size}x{module.kernel_size}, stride {module.stride}"
    ),
    nn.Identity: lambda _: "",
    layers.GlobalResponseNorm: lambda _: "global response norm",
    layers.SqueezeExcitation: lambda module: (
        f"squeeze and excitation, {module.conv1.in_channels} -> {module.conv1.out_channels} and "
        "back"
    ),
    layers.InceptionConvolution: _inception,
    layers.StarReLU: lambda _: "StarReLU",
}


def _name(module: nn.Module) -> str:
    """Return a module's name and sizes; a custom part's as torch prints them."""
    for kind, name in _NAMES.items():
        if isinstance(module, kind):
            return name(module)
    if list(module.children()):
        return type(module).__name__
    return " ".join(repr(module).split()).removesuffix("()")


def _swin(a: SwinArchitecture) -> list[str]:
    width, window, patch = a.embed_dim, a.window_size, a.stem_stride
    return [
        "stem",
        f"{_INDENT}conv {patch}x{patch}, 3 -> {width}, stride {patch}, layer norm",
        "block (stage 1)",
        f"{_INDENT}| layer norm, attention in {window}x{window} windows of {a.num_heads[0]} heads",
        f"{_INDENT}+ shortcut",
        f"{_INDENT}| layer norm, linear, {width} -> {4 * width}, GELU, linear, -> {width}",
        f"{_INDENT}+ shortcut",
        "downsampling (into stage 2)",
        f"{_INDENT}layer norm of 2x2 neighbours, linear, {4 * width} -> {2 * width}",
        "head",
        f"{_INDENT}layer norm, average pool",
        f"{_INDENT}linear, {width * 2 ** (len(a.depths) - 1)} -> classes",
    ]


def _side_by_side(before: Sequence[str], after: Sequence[str], headers: tuple[str, str]) -> str:
    """Print two drawings side by side; ~ marks a changed line, + a new one, - a removed one."""
    rows = []
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        for k in range(max(i2 - i1, j2 - j1)):
            left = before[i1 + k] if i1 + k < i2 else ""
            right = after[j1 + k] if j1 + k < j2 else ""
            changed = "~" if left and right else "+" if right else "-"
            rows.append((left, " " if tag == "equal" else changed, right))
    wide = max(len(headers[0]), *(len(left) for left, _, _ in rows))
    text = [
        f"{headers[0]:<{wide}}    {headers[1]}",
        f"{'-' * wide}    {'-' * max(len(right) for _, _, right in rows)}",
        *(f"{left:<{wide}}  {mark} {right}".rstrip() for left, mark, right in rows),
    ]
    return "\n".join(text) + "\n"


def drawing(roadmap: Roadmap, regime: Regime, step: Step) -> str:
    """Return the drawing of a step beside that of the step that it changes, if any."""
    after = lines(roadmap, regime, step)
    if step.after is None:
        return "\n".join(after) + "\n"
    previous = roadmap.step(step.after)
    before = lines(roadmap, regime, previous)
    # A flag may change what no line of the drawing has, or a custom part its code alone.
    old, new = (vars(roadmap.architecture(each, regime)) for each in (previous, step))
    if changed := [name for name in new if new[name] != old[name]]:
        before += ["flags", *(f"{_INDENT}{name}: {old[name]}" for name in changed)]
        after += ["flags", *(f"{_INDENT}{name}: {new[name]}" for name in changed)]
    return _side_by_side(before, after, (previous.name, step.name))


def show(roadmap: Roadmap, regime: Regime, step: Step, resolution: int = 224) -> str:
    """Return what a step changes, its drawing beside the step before, parameters and FLOPs."""
    number = "off the path" if step.number is None else f"step {step.number}"
    whole = [f"the {of} recipe" for of in RecipeOf if step.recipe == of.whole()]
    fields = {**step.changes(regime), **({} if whole else step.recipe_changes(regime))}
    changes = ", ".join([*(f"{name}={value!r}" for name, value in fields.items()), *whole])
    about = "; ".join(filter(None, (step.description, step.source)))
    return (
        f"{step.name} ({number}, regime {regime.name}): {about}; "
        f"changes {changes or 'nothing'}\n\n"
        f"{drawing(roadmap, regime, step)}\n"
        f"{_sizes(roadmap, regime, step, resolution)}\n\n"
        f"{resolution}x{resolution}, 1000 classes; FLOPs in the paper's convention; layer scale is "
        "left out.\n"
    )


def _sizes(roadmap: Roadmap, regime: Regime, step: Step, resolution: int) -> str:
    """Return the parameters and FLOPs of each stage, beside those of the step before."""
    both = [step] if step.after is None else [roadmap.step(step.after), step]
    stages = [stage_complexity(roadmap.architecture(each, regime), resolution) for each in both]
    rows = []
    for name in max(stages, key=len):  # a step may add a stage
        sizes = [own.get(name) for own in stages]
        mark = "~" if sizes[0] != sizes[-1] else ""
        rows.append([name, *_millions(sizes), mark])
    totals = [tuple(map(sum, zip(*own.values(), strict=True))) for own in stages]
    rows.append(["all", *_millions(totals), ""])
    header = ["", *(cell for each in both for cell in (f"{each.name}: params", "FLOPs")), ""]
    align = ("left", *["right"] * (2 * len(both)), "left")
    if len(both) == 1:  # nothing to mark
        header, align, rows = header[:-1], align[:-1], [row[:-1] for row in rows]
    text: str = tabulate(rows, header, "simple", disable_numparse=True, colalign=align)
    return text


def _millions(sizes: Sequence[Any]) -> list[str]:
    cells = []
    for size in sizes:
        cells += [f"{size[0] / 1e6:.3f} M", f"{size[1] / 1e9:.3f} G"] if size else ["", ""]
    return cells
