"""All that can change the result of a run, and its digest, by which the run is known. No torch."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from typing import Any

from models import Architecture, SwinArchitecture
from training.recipe import Precision, Recipe


@dataclass(frozen=True)
class Identity:
    """All that defines a run. Runs of equal digest compute equal results, up to rounding."""

    architecture: Architecture | SwinArchitecture
    recipe: Recipe
    images: str
    """The data set's fingerprint."""
    resolution: int
    precision: Precision
    init_weights: str | None
    """sha256 of the file that the weights start from; None where they are random."""
    seed: int | None
    """None where the seed is left open, as for `variant_digest`."""
    custom_parts: Mapping[str, str] = field(default_factory=dict)
    """Field of the architecture to a digest of the source, for parts that the user wrote."""

    @cached_property
    def digest(self) -> str:
        return hexdigest({"network": type(self.architecture).__name__, **essence(self)})

    @cached_property
    def variant_digest(self) -> str:
        """The digest without the seed. Runs that share it may be averaged."""
        return replace(self, seed=None).digest

    def record(self) -> dict[str, Any]:
        """The digests, and all that they are computed from, for config.json."""
        return {"digest": self.digest, "variant_digest": self.variant_digest, **asdict(self)}

    def difference(self, recorded: Mapping[str, Any]) -> list[str]:
        """How a `record` differs from this run, see `difference`; empty for the same run."""
        return difference(recorded, self.record())


PARTS = tuple(field.name for field in fields(Identity))


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The differences of two records, each as "architecture.activation was 'relu', is 'gelu'"."""
    same = before.get("digest") == now.get("digest")
    parts = [name for name in PARTS if name in before and name in now]
    old, new = (
        dict(_flat(json.loads(json.dumps({part: record[part] for part in parts}))))
        for record in (before, now)
    )
    # Under one digest, a field of only one record is one that was added or removed, at its default.
    names = [name for name in {**new, **old} if not same or (name in new and name in old)]
    different = [
        f"{name} was {old.get(name)!r}, is {new.get(name)!r}"
        for name in names
        if old.get(name) != new.get(name)
    ]
    return (
        different
        if different or same
        else [f"its digest was {before.get('digest')}, is {now.get('digest')}"]
    )


def essence(value: Any) -> Any:
    """`value` as JSON, without the fields of dataclasses that are at their defaults.

    A new field with a default therefore leaves every digest as it was. 4 and 4.0 are equal.
    """
    if is_dataclass(value):
        pairs = ((field, getattr(value, field.name)) for field in fields(value))
        return {each.name: essence(inner) for each, inner in pairs if not _is_default(each, inner)}
    if isinstance(value, Mapping):
        return {str(key): essence(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [essence(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_default(field: "Field[Any]", value: object) -> bool:
    default = field.default if field.default_factory is MISSING else field.default_factory()
    return default is not MISSING and bool(value == default)


def hexdigest(content: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of the sha256 of `content` as canonical JSON."""
    canonical = json.dumps(essence(content), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode(errors="surrogateescape")).hexdigest()[:16]


def _flat(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
