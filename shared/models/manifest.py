"""What a model is, in one JSON document: the manifest, whose sha256 is the model's address.

The manifest names every other file of the artefact by sha256 and size, so the digest of the manifest's
canonical bytes covers all of it. Nothing here imports torch.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    model_validator,
)

from shared.models.safety import ModelRefused, strict_json

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 1 << 20
MAX_FILE_BYTES = 4 << 30
MAX_PARAMETERS = 1 << 30

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,40}\.(safetensors|onnx)$")]
TensorsName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,40}\.safetensors$")]
Width = Annotated[int, Field(ge=1, le=65_536)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)


class Linear(_Frozen):
    """Logistic regression: one layer from the scaled features to the score."""

    name: Literal["linear"] = "linear"
    inputs: Width
    classes: Annotated[int, Field(ge=2, le=1024)] = 2

    @property
    def widths(self) -> tuple[int, ...]:
        """Units a layer, inputs first, outputs last; two classes need one output."""
        return (self.inputs, _outputs(self.classes))


class Category(_Frozen):
    """An input that is a code in 0..values-1: it is looked up in a table of `width` columns, not scaled.

    Any other number is looked up in the table's last row, `values`, which stands for codes never seen.
    """

    input: Annotated[int, Field(ge=0, lt=65_536)]
    values: Annotated[int, Field(ge=1, le=1_000_000)]
    width: Annotated[int, Field(ge=1, le=256)]


class Mlp(_Frozen):
    """Fully connected layers with ReLU between them, behind an embedding for each category."""

    name: Literal["mlp"] = "mlp"
    inputs: Width
    hidden: Annotated[tuple[Width, ...], Field(min_length=1, max_length=16)]
    classes: Annotated[int, Field(ge=2, le=1024)] = 2
    # Left out of the canonical form where there is none.
    categorical: Annotated[
        tuple[Category, ...], Field(max_length=1024, exclude_if=lambda categories: not categories)
    ] = ()

    @model_validator(mode="after")
    def _categories_are_inputs(self) -> "Mlp":
        places = [category.input for category in self.categorical]
        if places != sorted(set(places)) or any(place >= self.inputs for place in places):
            raise ValueError(f"categorical inputs {places[:20]} must ascend and stay below {self.inputs}")
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """Units a layer, inputs (categories embedded) first, outputs last; two classes need one output."""
        embedded = sum(category.width - 1 for category in self.categorical)
        return (self.inputs + embedded, *self.hidden, _outputs(self.classes))


class Trees(_Frozen):
    """Gradient-boosted decision trees in ONNX: `nodes` decide, so there are `nodes + trees` leaves."""

    name: Literal["trees"] = "trees"
    inputs: Width
    trees: Annotated[int, Field(ge=1, le=100_000)]
    nodes: Annotated[int, Field(ge=1, le=4_000_000)]
    classes: Annotated[int, Field(ge=2, le=1024)] = 2

    @property
    def outputs(self) -> int:
        """Sums of leaves a row; two classes need one."""
        return _outputs(self.classes)


Architecture = Annotated[Linear | Mlp | Trees, Field(discriminator="name")]
Dtype = Literal["float32", "float64"]


def _outputs(classes: int) -> int:
    return 1 if classes == 2 else classes


def parameters(architecture: Linear | Mlp | Trees) -> int:
    """How many weights and biases the layers and tables have, or splits and leaves the trees.

    >>> parameters(Mlp(inputs=14, hidden=(32, 16)))
    1025
    """
    if isinstance(architecture, Trees):
        return 2 * architecture.nodes + architecture.trees
    categories = architecture.categorical if isinstance(architecture, Mlp) else ()
    tables = sum((category.values + 1) * category.width for category in categories)
    return tables + sum((a + 1) * b for a, b in pairwise(architecture.widths))


class FileEntry(_Frozen):
    """One file of the artefact."""

    sha256: Sha256
    size: Annotated[int, Field(ge=0, le=MAX_FILE_BYTES)]


class Golden(_Frozen):
    """Inputs whose outputs are known: what the weights give must agree within `tolerance` (absolute)."""

    file: TensorsName = "golden.safetensors"
    rows: Annotated[int, Field(ge=1, le=4096)]
    tolerance: Annotated[float, Field(gt=0, le=1e-3)]


class Budget(_Frozen):
    """What the model says it needs, on top of the runtime: bytes, and seconds a row on the golden samples."""

    memory_bytes: Annotated[int, Field(gt=0, le=64 << 30)]
    row_seconds: Annotated[float, Field(gt=0, le=60)]

    @staticmethod
    def estimate(architecture: Linear | Mlp | Trees, dtype: Dtype) -> "Budget":
        """From the size alone, so that the same training gives the same manifest on any machine."""
        count = parameters(architecture)
        if isinstance(architecture, Trees):  # a split is some 150 bytes of ONNX, parsed and loaded
            row_seconds = 20e-6 + 0.2e-6 * architecture.trees
            return Budget(memory_bytes=1024 * count + (256 << 20), row_seconds=row_seconds)
        weights = count * (4 if dtype == "float32" else 8)
        return Budget(memory_bytes=4 * weights + (256 << 20), row_seconds=20e-6 + 0.5e-9 * count)


class Manifest(_Frozen):
    """A model without its weights."""

    format: Literal["millrace.model.v1"] = "millrace.model.v1"
    architecture: Architecture
    dtype: Dtype
    feature_names: Annotated[tuple[str, ...], Field(min_length=1, max_length=65_536)]
    feature_fingerprint: Sha256
    weights: FileName = "weights.safetensors"
    golden: Golden
    budget: Budget
    dataset: dict[str, JsonValue]
    metrics: dict[str, float]
    created_from: dict[str, JsonValue]
    files: dict[FileName, FileEntry]

    def canonical(self) -> bytes:
        """The manifest's only byte form: sorted keys, no spaces, ASCII."""
        document = self.model_dump(mode="json")
        return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

    @property
    def digest(self) -> str:
        """sha256 of the canonical bytes, in hex: the model's address."""
        return hashlib.sha256(self.canonical()).hexdigest()

    @staticmethod
    def parse(data: bytes) -> "Manifest":
        """Read canonical bytes; ModelRefused `manifest.invalid` for anything else."""
        if len(data) > MAX_MANIFEST_BYTES:
            raise ModelRefused("manifest.invalid", f"{len(data)} bytes, at most {MAX_MANIFEST_BYTES}")
        try:
            manifest = Manifest.model_validate(strict_json(data))
        except (ValueError, ValidationError) as error:
            raise ModelRefused("manifest.invalid", _first_line(error)) from error
        if manifest.canonical() != data:
            raise ModelRefused("manifest.invalid", "not in the canonical form of Manifest.canonical()")
        _check(manifest)
        return manifest


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first: Any = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)


def _check(manifest: Manifest) -> None:
    named = {manifest.weights, manifest.golden.file}
    if named != set(manifest.files) or len(named) != 2:
        raise ModelRefused("manifest.invalid", f"files must be exactly {sorted(named)}")
    ending = ".onnx" if isinstance(manifest.architecture, Trees) else ".safetensors"
    if not manifest.weights.endswith(ending):
        raise ModelRefused("manifest.invalid", f"{manifest.architecture.name} weights are a {ending} file")
    if len(manifest.feature_names) != manifest.architecture.inputs:
        raise ModelRefused(
            "features.mismatch",
            f"{len(manifest.feature_names)} feature names for {manifest.architecture.inputs} inputs",
        )
    if len(set(manifest.feature_names)) != len(manifest.feature_names):
        raise ModelRefused("features.mismatch", "a feature is named twice")
    if parameters(manifest.architecture) > MAX_PARAMETERS:
        raise ModelRefused("resources.memory", f"more than {MAX_PARAMETERS} parameters")


@dataclass(frozen=True, slots=True)
class Artefact:
    """A manifest with the bytes of the files that it names."""

    manifest: Manifest
    files: Mapping[str, bytes]

    @property
    def digest(self) -> str:
        """The address of the whole artefact."""
        return self.manifest.digest

    def verify(self) -> None:
        """Check size and sha256 of every file; ModelRefused `digest.mismatch` or `manifest.invalid`."""
        _check(self.manifest)
        if set(self.files) != set(self.manifest.files):
            raise ModelRefused("digest.mismatch", f"files {sorted(self.files)}, not as the manifest lists")
        for name, entry in self.manifest.files.items():
            data = self.files[name]
            if len(data) != entry.size or hashlib.sha256(data).hexdigest() != entry.sha256:
                raise ModelRefused("digest.mismatch", f"{name} is not what the manifest's sha256 says")


def describe(files: Mapping[str, bytes]) -> dict[str, FileEntry]:
    """The manifest's entries for these files."""
    return {
        name: FileEntry(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        for name, data in files.items()
    }
