"""The signed word on `models.v1` that a model version shall serve."""

from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.models.announcement import RELEASE, Announcement
from shared.models.manifest import Artefact
from shared.models.signing import sign


@dataclass(frozen=True, slots=True)
class Numbers:
    """A version and a sequence that no announcement has used."""

    version: int
    sequence: int


def next_numbers(name: str, announced: Iterable[Announcement]) -> Numbers:
    """One above the highest of this model on the topic; 1 and 1 on an empty one."""
    mine = [each for each in announced if each.name == name]
    return Numbers(
        max((each.version for each in mine), default=0) + 1,
        max((each.sequence for each in mine), default=0) + 1,
    )


def announce(
    artefact: Artefact,
    name: str,
    numbers: Numbers,
    key: Ed25519PrivateKey,
    issued_at_ms: int,
    *,
    kind: str = RELEASE,
    lifetime_ms: int | None = None,
) -> Announcement:
    """The signed announcement of an artefact that lies in the store; checked before it is signed."""
    said = Announcement(
        name=name,
        version=numbers.version,
        digest=artefact.digest,
        feature_fingerprint=artefact.manifest.feature_fingerprint,
        sequence=numbers.sequence,
        issued_at=issued_at_ms,
        kind=kind,
        expires_at=None if lifetime_ms is None else issued_at_ms + lifetime_ms,
    )
    said.check()
    return sign(said, key)
