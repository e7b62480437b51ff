"""Hostile artefacts and announcements as a table: what an attacker leaves, and why it is refused."""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.models.announcement import Announcement
from shared.models.manifest import Artefact, Linear
from shared.models.safety import read_tensors, write_tensors
from shared.models.signing import key_id, sign
from shared.store.artefacts import ArtefactStore
from tests.unit.models.makers import rebound, with_weights

WEIGHTS = "weights.safetensors"
# Times a number near 1,000 it leaves float32; times one up to 1 it does not.
STEEP = np.array([[3e38, -3e38, 0.0, 0.0]], np.float32)


@dataclass(slots=True)
class Forge:
    """Makes announcements that are right in all but one thing.

    `honest` is an artefact that would be taken, `store` and `root` where artefacts lie, `key` is trusted,
    `told` is what a pickle writes to when it is opened, `trap` an address where somebody listens.
    """

    honest: Artefact
    store: ArtefactStore
    root: Path
    key: Ed25519PrivateKey
    name: str
    told: Path
    trap: str
    now_ms: int
    count: int = field(default=1)

    def say(self, artefact: Artefact | None = None, **changes: Any) -> Announcement:
        """The next announcement, unsigned, of an artefact put into the store."""
        artefact = artefact or self.variant()
        self.store.put(artefact)
        self.count += 1
        said = Announcement(
            self.name,
            self.count,
            artefact.digest,
            artefact.manifest.feature_fingerprint,
            self.count,
            self.now_ms,
        )
        return replace(said, **changes)

    def signed(self, artefact: Artefact | None = None, **changes: Any) -> Announcement:
        """The same, signed with the trusted key."""
        return sign(self.say(artefact, **changes), self.key)

    def variant(self) -> Artefact:
        """An honest artefact under a digest of its own."""
        return rebound(self.honest, {}, created_from={"variant": self.count})

    def file(self, data: bytes) -> Announcement:
        """An artefact whose weights are this file, by right name, size and sha256."""
        return self.signed(rebound(self.variant(), {WEIGHTS: data}))

    def altered(self, name: str) -> Announcement:
        """An artefact of which one file was changed after it was stored."""
        said = self.signed()
        path = self.root / said.digest / name
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(bytes(data))
        return said

    def weights(self, **changes: Any) -> Announcement:
        """An artefact with other tensors."""
        return self.signed(with_weights(self.variant(), **changes))

    def golden(self, base: Artefact, **changes: Any) -> Announcement:
        """An artefact with other golden samples."""
        name = base.manifest.golden.file
        tensors = read_tensors(base.files[name])
        return self.signed(rebound(base, {name: write_tensors({**tensors, **changes})}))

    @property
    def golden_rows(self) -> int:
        """How many golden samples the honest artefact has."""
        return self.honest.manifest.golden.rows


class _Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def _zip(forge: Forge) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(_Bomb(forge.told)))
    return buffer.getvalue()


def _safetensors(header: Mapping[str, Any] | str, body: bytes) -> bytes:
    text = header if isinstance(header, str) else json.dumps(header)
    return struct.pack("<Q", len(text)) + text.encode() + body


def _entry(shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}


_OVERLAP = _safetensors({"a": _entry([2], 0, 8), "b": _entry([1], 4, 8)}, bytes(8))
_HOLE = _safetensors({"a": _entry([1], 0, 4), "b": _entry([1], 8, 12)}, bytes(12))
_TRAILING = _safetensors({"a": _entry([1], 0, 4)}, bytes(5))
_OVERFLOW = _safetensors({"a": _entry([1 << 33, 1 << 33], 0, 4)}, bytes(4))
_TWICE = '{"w":' + json.dumps(_entry([1], 0, 4)) + ',"w":' + json.dumps(_entry([1], 4, 8)) + "}"


def _wrong_key(forge: Forge) -> Announcement:
    return sign(forge.say(), Ed25519PrivateKey.generate())


def _borrowed_key_id(forge: Forge) -> Announcement:
    """Signed by somebody else under the trusted key's name."""
    said = replace(forge.say(), key_id=key_id(forge.key.public_key()))
    return replace(said, signature=Ed25519PrivateKey.generate().sign(said.canonical()))


def _changed_after(forge: Forge) -> Announcement:
    return replace(forge.signed(), version=forge.count + 1_000)


def _expired(forge: Forge) -> Announcement:
    return forge.signed(expires_at=forge.now_ms - 60_000)


def _other_features(forge: Forge) -> Announcement:
    names = forge.honest.manifest.feature_names
    return forge.signed(rebound(forge.variant(), {}, feature_names=tuple(reversed(names))))


def _more_outputs(forge: Forge) -> Announcement:
    inputs = len(forge.honest.manifest.feature_names)
    return forge.signed(rebound(forge.variant(), {}, architecture=Linear(inputs=inputs, classes=3)))


def _nan_on_golden(forge: Forge) -> Announcement:
    steep = with_weights(forge.variant(), layers__0__weight=STEEP)
    return forge.golden(steep, inputs=np.full((forge.golden_rows, STEEP.shape[1]), 1e9))


Make = Callable[[Forge], Announcement]

CASES: Mapping[str, tuple[str, Make]] = {
    "52 weights changed in the store": ("digest.mismatch", lambda f: f.altered(WEIGHTS)),
    "52 the manifest changed in the store": ("digest.mismatch", lambda f: f.altered("manifest.json")),
    "53 not signed": ("signature.missing", lambda f: f.say()),
    "53 signed with an unknown key": ("signature.unknown_key", _wrong_key),
    "53 signed under a borrowed name": ("signature.invalid", _borrowed_key_id),
    "53 changed after it was signed": ("signature.invalid", _changed_after),
    "53 expired": ("signature.expired", _expired),
    "54 a pickle": ("format.pickle", lambda f: f.file(pickle.dumps(_Bomb(f.told)))),
    "54 a zip, as torch saves": ("format.zip", lambda f: f.file(_zip(f))),
    "54 a 7z": ("format.7z", lambda f: f.file(b"7z\xbc\xaf\x27\x1c" + bytes(64))),
    "55 an old pickle named safetensors": (
        "format.safetensors",
        lambda f: f.file(pickle.dumps(_Bomb(f.told), protocol=0)),
    ),
    "56 a header of 2**62": ("format.safetensors", lambda f: f.file(struct.pack("<Q", 1 << 62) + b"{}")),
    "56 an overlap": ("format.safetensors", lambda f: f.file(_OVERLAP)),
    "56 a hole": ("format.safetensors", lambda f: f.file(_HOLE)),
    "56 trailing bytes": ("format.safetensors", lambda f: f.file(_TRAILING)),
    "56 a shape that overflows": ("format.safetensors", lambda f: f.file(_OVERFLOW)),
    "57 a tensor named twice": ("weights.duplicate_key", lambda f: f.file(_safetensors(_TWICE, bytes(8)))),
    "57 a weight of NaN": (
        "weights.nonfinite",
        lambda f: f.weights(layers__0__bias=np.array([np.nan], np.float32)),
    ),
    "58 a location on this machine": ("location.forbidden", lambda f: f.signed(location=f"{f.trap}/model")),
    "58 the cloud's metadata": (
        "location.forbidden",
        lambda f: f.signed(location="http://169.254.169.254/latest/meta-data"),
    ),
    "58 a file": ("location.forbidden", lambda f: f.signed(location="file:///etc/passwd")),
    "58 a path out of the store": ("location.forbidden", lambda f: f.signed(location="../../etc/passwd")),
    "58 a path as a digest": ("announcement.invalid", lambda f: f.signed(digest="../../../etc/passwd")),
    "59 features of another pipeline": (
        "features.mismatch",
        lambda f: f.signed(rebound(f.variant(), {}, feature_fingerprint="00" * 32)),
    ),
    "59 features in another order": ("features.mismatch", _other_features),
    "59 weights of another type": ("dtype.mismatch", lambda f: f.weights(layers__0__bias=np.zeros(1))),
    "59 more outputs": ("outputs.mismatch", _more_outputs),
    "59 weights of another shape": (
        "weights.shape",
        lambda f: f.weights(layers__0__bias=np.zeros(2, np.float32)),
    ),
    "60 NaN on its golden samples": ("golden.nonfinite", _nan_on_golden),
    "60 a golden output of 1.5": (
        "golden.range",
        lambda f: f.golden(f.variant(), outputs=np.full(f.golden_rows, 1.5)),
    ),
    "60 other outputs than in training": (
        "golden.mismatch",
        lambda f: f.golden(f.variant(), outputs=np.full(f.golden_rows, 0.123)),
    ),
}
"""Every item with the reason of its `model.rejected` record."""


def fails_on_large_numbers(forge: Forge) -> Artefact:
    """Proves itself on its golden samples, and gives NaN for vectors of the size of 1,000."""
    zeros = np.zeros((forge.golden_rows, STEEP.shape[1]))
    steep = with_weights(
        forge.variant(),
        layers__0__weight=STEEP,
        layers__0__bias=np.zeros(1, np.float32),
        scaling__mean=np.zeros(STEEP.shape[1]),
        scaling__scale=np.ones(STEEP.shape[1]),
    )
    golden = write_tensors({"inputs": zeros, "outputs": np.full(forge.golden_rows, 0.5)})
    return rebound(steep, {steep.manifest.golden.file: golden})
