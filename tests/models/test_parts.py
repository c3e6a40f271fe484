"""A module of the user's own in place of a block's part, registered in one line."""

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


class RMSNorm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        scale = x.square().mean(1, keepdim=True).add(1e-6).rsqrt()
        return x * scale * self.weight.view(-1, 1, 1)


def dilated(channels: int, kernel_size: int, stride: int) -> nn.Module:
    return nn.Conv2d(channels, channels, kernel_size, stride, kernel_size // 2 * 2, 2, channels)


OWN = {
    "norm": RMSNorm,
    "activation": nn.SiLU,
    "spatial": dilated,
    "before_last": lambda channels: nn.Dropout2d(0.5),
    "branch_end": lambda channels: nn.Conv2d(channels, channels, 1, groups=channels),
}


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_registered", {})


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {
            "inverted_bottleneck": True,
            "depthwise_first": True,
            "fewer_norms": True,
            "fewer_activations": True,
            "separate_downsampling": True,
        },
    ],
)
def test_every_part_can_be_ones_own_in_a_network_that_trains_is_counted_and_loaded(flags) -> None:
    for field, make in OWN.items():
        parts.register(field, "mine", make)
    architecture = Architecture(**SMALL, **flags, **dict.fromkeys(OWN, "mine"))
    model = build(architecture)
    block = model.stages[0].block1
    assert {type(module) for module in block.branch} >= {RMSNorm, nn.SiLU, nn.Dropout2d}
    assert isinstance(block.branch[-1], nn.Conv2d)
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    other = empty(architecture)
    load(other, model.state_dict())
    assert complexity(other, 32).params == sum(
        parameter.numel() for parameter in model.parameters()
    )


def test_registering_draws_nothing_from_the_generator_that_initial_weights_come_from() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    parts.register("spatial", "mine", dilated)
    assert torch.equal(torch.rand(3), expected)


class Sigmoid(nn.Module):
    """Its gradient needs its own output, which a ReLU behind it must not change."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)


def test_what_follows_ones_own_part_leaves_its_output_alone() -> None:
    parts.register("norm", "mine", lambda channels: Sigmoid())
    build(Architecture(**SMALL, norm="mine"))(torch.randn(2, 3, 32, 32)).sum().backward()


@pytest.mark.parametrize(
    ("field", "name", "make", "message"),
    [
        ("stem", "mine", RMSNorm, "'stem' takes no custom part: give spatial or norm"),
        ("norm", "batch", RMSNorm, "norm 'batch' is built in"),
        ("norm", "My Norm", RMSNorm, "'My Norm' cannot name a part"),
        ("norm", "", RMSNorm, "'' cannot name a part"),
        (
            "norm",
            "mine",
            lambda channels: torch.relu,
            "makes a builtin_function_or_method: make a torch.nn.Module",
        ),
        (
            "norm",
            "mine",
            lambda channels: nn.AvgPool2d(2),
            r"into \(2, 16, 4, 4\) at stride 1: make a module that",
        ),
        (
            "spatial",
            "mine",
            lambda channels, kernel_size, stride: nn.Identity(),
            r"into \(2, 16, 8, 8\) at stride 2",
        ),
    ],
)
def test_what_cannot_be_a_part_is_refused_in_a_sentence_when_it_is_registered(
    field, name, make, message
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parts.register(field, name, make)
    assert "\n" not in str(caught.value)
    assert parts.choices(field) == parts.BUILT_IN[field] if field in parts.ARGUMENTS else True


def test_a_part_that_is_not_registered_is_refused_by_name() -> None:
    with pytest.raises(
        ValueError, match="norm is 'mine': give 'batch' or 'layer', or register a custom part with"
    ):
        Architecture(norm="mine")
    parts.register("activation", "mine", nn.SiLU)
    with pytest.raises(ValueError, match="norm is 'mine'"):
        Architecture(norm="mine")
    assert Architecture(activation="mine").activation == "mine"


OWN_FILE = """
import torch
from models import parts

HALF = 0.5

def halved(x):
    return HALF * x

class Mine(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()

    def forward(self, x):
        return halved(x)

ROADMAP = [1, 2]
parts.register("norm", "mine", Mine)
parts.register("before_last", "mine", lambda channels: torch.nn.Dropout2d(HALF))
"""


def test_the_digest_of_a_part_is_that_of_what_it_names_in_its_file(tmp_path) -> None:
    def digests(text: str) -> dict[str, str]:
        path = tmp_path / f"own_{len(list(tmp_path.iterdir()))}.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return parts.sources(Architecture(norm="mine", before_last="mine"))

    first = digests(OWN_FILE)
    assert set(first) == {"norm", "before_last"}
    assert {len(digest) for digest in first.values()} == {16}
    assert digests(OWN_FILE.replace("[1, 2]", "[1, 2, 3]  # one more")) == first
    assert digests(OWN_FILE.replace("HALF * x", "x * HALF")) == {
        **first,
        "norm": parts.sources(Architecture(norm="mine"))["norm"],
    }
    assert parts.sources(Architecture(norm="mine"))["norm"] != first["norm"]
    second = digests(OWN_FILE.replace("0.5", "0.25"))
    assert all(second[field] != first[field] for field in first)
    parts.register("norm", "mine", partial(RMSNorm))
    assert set(parts.sources(Architecture(norm="mine"))) == {"norm"}
    assert parts.sources(Architecture()) == {}


def test_a_decorated_part_is_known_by_its_own_text(tmp_path) -> None:
    def digest(factor: float, decorator: str) -> str:
        path = tmp_path / f"own_{len(list(tmp_path.iterdir()))}.py"
        path.write_text(
            f"import torch\n\ndef mark(make):\n    return make\n\n\n{decorator}\ndef "
            "mine(channels):\n"
            f"    return torch.nn.Dropout2d({factor})\n"
        )
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return parts.source_digest(module.mine)

    for decorator in ("@mark", "@torch.no_grad()"):
        assert digest(0.1, decorator) != digest(0.2, decorator)
    assert digest(0.1, "@mark") == digest(0.1, "@mark")


def test_a_part_without_a_file_is_refused_a_digest() -> None:
    scope: dict[str, object] = {"nn": nn, "__name__": "nowhere"}
    exec("make = lambda channels: nn.Identity()", scope)
    parts.register("norm", "mine", scope["make"])
    with pytest.raises(
        ValueError, match="the source of norm 'mine' cannot be read: define it in a file"
    ):
        parts.sources(Architecture(norm="mine"))["norm"]


def test_importing_the_registry_does_not_import_torch() -> None:
    script = (
        "import sys\nfrom models import Architecture, parts\nassert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
