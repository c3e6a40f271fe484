"""What a run is: all that can change its result, and the digest of it by which the run is known. No
torch here."""

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
    """What a run is. Two runs with the same digest compute the same result, up to rounding."""

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
    own_parts: Mapping[str, str] = field(default_factory=dict)
    """Where parts of the network are the user's own: field of the architecture to a digest of the
    part's source."""

    @cached_property
    def digest(self) -> str:
        return hexdigest({"network": type(self.architecture).__name__, **essence(self)})

    @cached_property
    def variant_digest(self) -> str:
        """The digest without the seed: runs that share it may be averaged."""
        return replace(self, seed=None).digest

    def record(self) -> dict[str, Any]:
        """For config.json: the digests and what they are of."""
        return {"digest": self.digest, "variant_digest": self.variant_digest, **asdict(self)}

    def difference(self, recorded: Mapping[str, Any]) -> list[str]:
        """What a `record` states that is not so here, each as "architecture.activation was 'relu',
        is 'gelu'".

        Empty where the record is of this very run.
        """
        return difference(recorded, self.record())


PARTS = tuple(field.name for field in fields(Identity))


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What two records state differently, each as "architecture.activation was 'relu', is
    'gelu'"."""
    same = before.get("digest") == now.get("digest")
    parts = [name for name in PARTS if name in before and name in now]
    old, new = (
        dict(_flat(json.loads(json.dumps({part: record[part] for part in parts}))))
        for record in (before, now)
    )
    # Under one digest, what only one of the two has is a field that was new or went, at its
    # default.
    names = [name for name in {**new, **old} if not same or (name in new and name in old)]
    found = [
        f"{name} was {old.get(name)!r}, is {new.get(name)!r}"
        for name in names
        if old.get(name) != new.get(name)
    ]
    return (
        found
        if found or same
        else [f"its digest was {before.get('digest')}, is {now.get('digest')}"]
    )


def essence(value: Any) -> Any:
    """`value` as JSON holds it, without the fields of dataclasses that are at their defaults.

    So a new field with a default leaves every digest as it was. Equal numbers come out equal, 4 and
    4.0 too.
    """
    if is_dataclass(value):
        own = ((field, getattr(value, field.name)) for field in fields(value))
        return {field.name: essence(inner) for field, inner in own if not _is_default(field, inner)}
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
