import json

import pytest
import torch

from shared.models.architectures import Network
from shared.models.building import untrained
from shared.models.loading import load_model
from shared.models.manifest import (
    MAX_MANIFEST_BYTES,
    Artefact,
    Category,
    Linear,
    Manifest,
    Mlp,
    Trees,
    parameters,
)
from shared.models.safety import ModelRefused
from tests.unit.models.makers import FEATURES, FINGERPRINT, NAMES, artefact


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
    embedding = Mlp(inputs=3, hidden=(4,), categorical=(Category(input=0, values=9, width=2),))
    assert parameters(embedding) == 10 * 2 + 5 * 4 + 5
    assert parameters(Trees(inputs=3, trees=2, nodes=3)) == 3 + 5


def test_a_network_without_categories_keeps_the_form_it_had() -> None:
    assert b"categorical" not in artefact().manifest.canonical()


@pytest.mark.parametrize("places", [(1, 1), (2, 1), (3,)])
def test_categories_are_inputs_in_order(places: tuple[int, ...]) -> None:
    categories = [{"input": place, "values": 4, "width": 2} for place in places]
    changed = _mutated(
        architecture={"name": "mlp", "inputs": 3, "hidden": [4], "classes": 2, "categorical": categories}
    )
    with pytest.raises(ModelRefused, match=r"manifest\.invalid"):
        Manifest.parse(changed)


def test_a_code_is_looked_up_and_any_other_number_is_unseen() -> None:
    category = Category(input=1, values=3, width=2)
    torch.manual_seed(1)  # Some weights leave no hidden neuron awake, and every code then looks the same.
    network = Network(Mlp(inputs=2, hidden=(4,), categorical=(category,)), "float64")
    codes = [0.0, 1.0, 2.0, 3.0, -1.0, 1.5, 1e18, -1e300]
    out = network(torch.tensor([[0.5, code] for code in codes], dtype=torch.float64)).tolist()
    assert len(set(out[:4])) == 4
    assert set(out[3:]) == {out[3]}


def test_untrained_models_know_nothing() -> None:
    for classes in (2, 3):
        loaded = load_model(untrained(FEATURES, classes), FINGERPRINT, NAMES, classes=classes)
        out = loaded.network(torch.ones(4, 3, dtype=torch.float64))
        assert torch.allclose(out, torch.full_like(out, 1 / classes))
