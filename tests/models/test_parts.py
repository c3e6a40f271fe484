"""A custom module in place of a block's part, registered in one line."""

import importlib.util
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models import Architecture, parts
from models.builder import build, empty
from models.complexity import complexity
from models.weights import load

ROOT = Path(__file__).parents[2]
SMALL = {"depths": (1, 1), "width": 4, "num_classes": 3}
FLAGS = "inverted_bottleneck depthwise_first fewer_norms fewer_activations separate_downsampling"
MODERN = dict.fromkeys(FLAGS.split(), True)


class RMSNorm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        scale = x.square().mean(1, keepdim=True).add(1e-6).rsqrt()
        return x * scale * self.weight.view(-1, 1, 1)


class Sigmoid(nn.Module):
    """Its gradient needs its own output, which a ReLU after it must not change."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)


def dilated(channels: int, kernel_size: int, stride: int) -> nn.Module:
    return nn.Conv2d(channels, channels, kernel_size, stride, kernel_size // 2 * 2, 2, channels)


CUSTOM = {
    "norm": RMSNorm,
    "activation": nn.SiLU,
    "spatial": dilated,
    "before_last": lambda channels: nn.Dropout2d(0.5),
    "branch_end": lambda channels: nn.Conv2d(channels, channels, 1, groups=channels),
}


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_registered", {})


@pytest.mark.parametrize("flags", [{}, MODERN])
def test_a_network_with_every_part_custom_trains_is_counted_and_loaded(flags) -> None:
    state = torch.get_rng_state()
    for field, make in CUSTOM.items():
        parts.register(field, "mine", make)
    assert torch.equal(torch.get_rng_state(), state)  # of initial weights
    architecture = Architecture(**SMALL, **flags, **dict.fromkeys(CUSTOM, "mine"))
    model = build(architecture)
    block = model.stages[0].block1
    assert {type(module) for module in block.branch} >= {RMSNorm, nn.SiLU, nn.Dropout2d}
    assert isinstance(block.branch[-1], nn.Conv2d)
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    other = empty(architecture)
    load(other, model.state_dict())
    assert complexity(other, 32).params == sum(p.numel() for p in model.parameters())


def test_an_activation_after_a_custom_part_leaves_its_output_alone() -> None:
    parts.register("norm", "mine", lambda channels: Sigmoid())
    build(Architecture(**SMALL, norm="mine"))(torch.randn(2, 3, 32, 32)).sum().backward()


@pytest.mark.parametrize(
    ("field", "name", "make", "message"),
    [
        ("stem", "mine", RMSNorm, "'stem' takes no custom part: give spatial or norm"),
        ("norm", "batch", RMSNorm, "norm 'batch' is built in"),
        ("norm", "My Norm", RMSNorm, "'My Norm' cannot name a part"),
        ("norm", "", RMSNorm, "'' cannot name a part"),
        ("norm", "mine", lambda channels: torch.relu, "make a torch.nn.Module"),
        ("norm", "mine", lambda channels: nn.AvgPool2d(2), r"into \(2, 16, 4, 4\) at stride 1"),
        ("spatial", "mine", lambda c, k, stride: nn.Identity(), r"into \(2, 16, 8, 8\) at stride"),
    ],
)
def test_an_invalid_part_is_refused_when_it_is_registered(field, name, make, message) -> None:
    with pytest.raises(ValueError, match=rf"^[^\n]*{message}[^\n]*$"):
        parts.register(field, name, make)
    assert parts.choices(field) == parts.BUILT_IN[field]
    with pytest.raises(parts.NoSuchPart, match="norm is 'mine': give 'batch' or 'layer', or regi"):
        Architecture(norm="mine")


FILE = """
import torch
from models import parts

HALF = 0.5

def mark(make):
    return make

def halved(x):
    return HALF * x

@mark
class Mine(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()

    def forward(self, x):
        return halved(x)

@torch.no_grad()
def drop(channels):
    return torch.nn.Dropout2d(0.1)

ROADMAP = [1, 2]
parts.register("norm", "mine", Mine)
parts.register("branch_end", "mine", drop)
parts.register("before_last", "mine", lambda channels: torch.nn.Dropout2d(HALF))
"""


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("[1, 2]", "[1, 2, 3]  # one more", set()),
        ("HALF * x", "x * HALF", {"norm"}),
        ("Dropout2d(0.1)", "Dropout2d(0.2)", {"branch_end"}),
        ("0.5", "0.25", {"norm", "before_last"}),
        ("return make", "return make or None", {"norm"}),
    ],
)
def test_a_part_is_identified_by_its_source_and_the_helpers_of_its_file(
    old, new, changed, tmp_path
) -> None:
    def digests(name: str, text: str) -> dict[str, str]:
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return parts.sources(Architecture(norm="mine", before_last="mine", branch_end="mine"))

    before, after = digests("one", FILE), digests("two", FILE.replace(old, new))
    assert {len(digest) for digest in before.values()} == {16}
    assert {field for field in before if before[field] != after[field]} == changed


def test_a_partial_is_identified_by_its_function_and_a_part_without_a_file_is_refused() -> None:
    parts.register("norm", "mine", partial(RMSNorm))
    digest = parts.source_digest(RMSNorm)
    assert parts.sources(Architecture(norm="mine")) == {"norm": digest}
    assert parts.sources(Architecture()) == {}
    scope: dict = {"nn": nn, "__name__": "nowhere"}
    exec("make = lambda channels: nn.Identity()", scope)
    parts.register("norm", "mine", scope["make"])
    with pytest.raises(ValueError, match="the source of norm 'mine' cannot be read: define it in"):
        parts.sources(Architecture(norm="mine"))


def test_importing_the_registry_does_not_import_torch() -> None:
    script = "import sys\nfrom models import parts\nassert 'torch' not in sys.modules\n"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
