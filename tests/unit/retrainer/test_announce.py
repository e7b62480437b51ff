import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.retrainer.core.announce import Numbers, announce, next_numbers
from shared.models.safety import ModelRefused
from shared.models.signing import key_id, verify
from tests.unit.models.makers import announcement, artefact

KEY = Ed25519PrivateKey.generate()


def test_numbers_are_above_everything_said_of_this_model() -> None:
    assert next_numbers("fraud", []) == Numbers(1, 1)
    said = [announcement(4, 4), announcement(2, 7), announcement(90, 90, name="other")]
    assert next_numbers("fraud", said) == Numbers(5, 8)


def test_an_announcement_verifies_and_points_at_the_artefact() -> None:
    made = artefact()
    said = announce(made, "fraud", Numbers(3, 8), KEY, 1_000, lifetime_ms=500)
    verify(said, {key_id(KEY.public_key()): KEY.public_key()}, 1_500)
    assert (said.digest, said.version, said.sequence, said.expires_at) == (made.digest, 3, 8, 1_500)
    assert said.feature_fingerprint == made.manifest.feature_fingerprint


def test_a_name_that_workers_would_refuse_is_not_signed() -> None:
    with pytest.raises(ModelRefused, match=r"announcement\.invalid"):
        announce(artefact(), "no/name", Numbers(1, 1), KEY, 1_000)
