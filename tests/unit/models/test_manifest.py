import json

import pytest

from shared.models.manifest import MAX_MANIFEST_BYTES, Artefact, Linear, Manifest, Mlp, parameters
from shared.models.safety import ModelRefused
from tests.unit.models.makers import artefact


def test_canonical_bytes_come_back_as_the_same_manifest() -> None:
    made = artefact()
    again = Manifest.parse(made.manifest.canonical())
    assert again == made.manifest
    assert again.digest == made.digest


def test_same_network_gives_same_digest_and_another_seed_another() -> None:
    assert artefact(seed=1).digest == artefact(seed=1).digest
    assert artefact(seed=1).digest != artefact(seed=2).digest


def _mutated(**changes: object) -> bytes:
    document = json.loads(artefact().manifest.canonical())
    document.update(changes)
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


CANONICAL = artefact().manifest.canonical()
BAD_MANIFESTS = {
    "not_json": (b"\x80\x04junk", "manifest.invalid"),
    "not_canonical": (CANONICAL.replace(b":", b": "), "manifest.invalid"),
    "duplicate_key": (CANONICAL.replace(b"{", b'{"dtype":"float32",', 1), "manifest.invalid"),
    "nan": (_mutated(metrics={"auc": float("nan")}), "manifest.invalid"),
    "too_large": (b" " * (MAX_MANIFEST_BYTES + 1), "manifest.invalid"),
    "too_deep": (b"[" * 100_000, "manifest.invalid"),
    "unknown_field": (_mutated(location="http://other.example/"), "manifest.invalid"),
    "unknown_architecture": (_mutated(architecture={"name": "pickle", "inputs": 3}), "manifest.invalid"),
    "path_as_file_name": (_mutated(weights="../../weights.safetensors"), "manifest.invalid"),
    "file_not_listed": (_mutated(weights="other.safetensors"), "manifest.invalid"),
    "too_few_names": (_mutated(feature_names=["a"]), "features.mismatch"),
    "name_twice": (_mutated(feature_names=["a", "a", "b"]), "features.mismatch"),
    "too_many_parameters": (
        _mutated(architecture={"name": "mlp", "inputs": 3, "hidden": [65536, 65536], "classes": 2}),
        "resources.memory",
    ),
}


@pytest.mark.parametrize("case", BAD_MANIFESTS)
def test_bad_manifests_are_refused(case: str) -> None:
    data, reason = BAD_MANIFESTS[case]
    with pytest.raises(ModelRefused) as refused:
        Manifest.parse(data)
    assert refused.value.reason == reason


def test_a_changed_byte_in_a_file_is_a_digest_mismatch() -> None:
    made = artefact()
    name = made.manifest.weights
    changed = bytearray(made.files[name])
    changed[-1] ^= 1
    with pytest.raises(ModelRefused, match=r"digest\.mismatch"):
        Artefact(made.manifest, {**made.files, name: bytes(changed)}).verify()


def test_parameters_counts_weights_and_biases() -> None:
    assert parameters(Linear(inputs=3)) == 4
    assert parameters(Mlp(inputs=3, hidden=(4, 2))) == 16 + 10 + 3
