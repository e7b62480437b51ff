import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.errors import Refused
from shared.models.announcement import Announcement, announcement_batch, announcements
from shared.models.safety import ModelRefused
from shared.models.signing import KeyFolder, key_id, sign, verify
from tests.unit.models.makers import announcement

KEY = Ed25519PrivateKey.generate()
TRUSTED = {key_id(KEY.public_key()): KEY.public_key()}
SIGNED = sign(announcement(expires_at=5_000), KEY)


def test_a_signed_announcement_verifies_until_it_expires() -> None:
    verify(SIGNED, TRUSTED, 5_000)


CHANGED = {
    "name": replace(SIGNED, name="other"),
    "version": replace(SIGNED, version=2),
    "digest": replace(SIGNED, digest="ee" * 32),
    "fingerprint": replace(SIGNED, feature_fingerprint="ee" * 32),
    "sequence": replace(SIGNED, sequence=9),
    "kind": replace(SIGNED, kind="rollback"),
    "location": replace(SIGNED, location="file:///x"),
    "issued_at": replace(SIGNED, issued_at=1),
    "expires_at": replace(SIGNED, expires_at=9_000),
    "never_expires": replace(SIGNED, expires_at=None),
    "state": replace(SIGNED, state="shadow"),
    "share": replace(SIGNED, share=0.5),
    "reason": replace(SIGNED, reason="gate.passed"),
    "signature": replace(SIGNED, signature=bytes(64)),
    "short_signature": replace(SIGNED, signature=b"x"),
}


@pytest.mark.parametrize("field", CHANGED)
def test_every_field_is_signed(field: str) -> None:
    with pytest.raises(ModelRefused) as refused:
        verify(CHANGED[field], TRUSTED, 1_000)
    assert refused.value.reason == "signature.invalid"


REFUSED: dict[str, tuple[Announcement, int, str]] = {
    "unsigned": (announcement(), 1_000, "signature.missing"),
    "unknown_key": (sign(announcement(), Ed25519PrivateKey.generate()), 1_000, "signature.unknown_key"),
    "claims_a_trusted_key": (
        replace(sign(announcement(), Ed25519PrivateKey.generate()), key_id=SIGNED.key_id),
        1_000,
        "signature.invalid",
    ),
    "expired": (SIGNED, 5_001, "signature.expired"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_untrusted_announcements_are_refused(case: str) -> None:
    said, now_ms, reason = REFUSED[case]
    with pytest.raises(ModelRefused) as refused:
        verify(said, TRUSTED, now_ms)
    assert refused.value.reason == reason


FORBIDDEN = ["http://169.254.169.254/latest/", "file:///etc/passwd", "../../model", "s3://bucket/x", ""]


@pytest.mark.parametrize("location", FORBIDDEN)
def test_a_location_is_refused_even_when_signed(location: str) -> None:
    with pytest.raises(ModelRefused, match=r"location\.forbidden"):
        sign(announcement(location=location), KEY).check()


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": "../" * 20 + "aaaa"},
        {"digest": "AB" * 32},
        {"digest": "ab" * 32 + "\n"},
        {"feature_fingerprint": ""},
        {"version": 0},
        {"sequence": 0},
        {"kind": "promote"},
        {"name": ""},
        {"name": "a/b"},
        {"state": "emperor"},
        {"share": 0.0},
        {"share": 1.5},
        {"share": float("nan")},
    ],
)
def test_values_outside_the_contract_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ModelRefused, match=r"announcement\.invalid"):
        announcement(**changes).check()


def test_announcements_survive_their_columns() -> None:
    canary = announcement(5, state="canary", share=0.25, reason="shadow.passed")
    rows = [SIGNED, announcement(3, location="x", kind="rollback"), announcement(4, name="ü"), canary]
    assert announcements(announcement_batch(rows)) == rows
    assert announcements(announcement_batch([SIGNED])) == [SIGNED]


def test_what_was_signed_before_there_were_states_still_verifies() -> None:
    said = (
        b"millrace.model.announcement.v1\n"
        + json.dumps(
            {
                "digest": SIGNED.digest,
                "expires_at": 5_000,
                "feature_fingerprint": SIGNED.feature_fingerprint,
                "issued_at": SIGNED.issued_at,
                "key_id": SIGNED.key_id,
                "kind": "release",
                "location": None,
                "name": SIGNED.name,
                "sequence": SIGNED.sequence,
                "version": SIGNED.version,
            },
            sort_keys=True,
            separators=(",", ":"),
        ).encode()
    )
    verify(replace(SIGNED, signature=KEY.sign(said)), TRUSTED, 1_000)


def test_a_key_folder_makes_its_key_once_and_trusts_it(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path / "keys")
    assert folder.trusted() == {}
    signed = sign(announcement(), folder.signer())
    assert signed == sign(announcement(), KeyFolder(tmp_path / "keys").signer())
    verify(signed, folder.trusted(), 1_000)
    assert os.stat(tmp_path / "keys" / "signing.pem").st_mode & 0o777 == 0o600


def test_a_foreign_key_is_obeyed_once_it_is_trusted(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path)
    signed = sign(announcement(), KEY)
    with pytest.raises(ModelRefused, match="unknown_key"):
        verify(signed, folder.trusted(), 1_000)
    folder.trust(KEY.public_key())
    verify(signed, folder.trusted(), 1_000)


def test_a_broken_key_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "trusted").mkdir()
    (tmp_path / "trusted" / "a.pem").write_text("nonsense")
    with pytest.raises(Refused, match=r"a\.pem is no PEM key"):
        KeyFolder(tmp_path).trusted()
