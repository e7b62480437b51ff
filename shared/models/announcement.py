"""What `models.v1` says about a model version, as a value and as columns of the Avro contract."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from shared.codec.batch import Batch, Column, Strings
from shared.models.safety import ModelRefused

RELEASE = "release"
ROLLBACK = "rollback"
CANDIDATE, VALIDATED, AWAITING = "candidate", "validated", "awaiting"
SHADOW, CANARY, CHAMPION = "shadow", "canary", "champion"
RETIRED, REJECTED, ROLLED_BACK = "retired", "rejected", "rolled_back"
STATES = (CANDIDATE, VALIDATED, AWAITING, SHADOW, CANARY, CHAMPION, RETIRED, REJECTED, ROLLED_BACK)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_DOMAIN = b"millrace.model.announcement.v1\n"
# Came later: left out of the signed form where they say what their absence had said, so that old signatures hold.
_LATER: dict[str, object] = {"state": CHAMPION, "share": 1.0, "reason": ""}


@dataclass(frozen=True, slots=True)
class Announcement:
    """One announced model version; the fields of `schemas/platform/model.avsc`, times in milliseconds."""

    name: str
    version: int
    digest: str
    feature_fingerprint: str
    sequence: int
    issued_at: int
    kind: str = RELEASE
    location: str | None = None
    expires_at: int | None = None
    key_id: str = ""
    signature: bytes = b""
    state: str = CHAMPION
    share: float = 1.0
    reason: str = ""

    def canonical(self) -> bytes:
        """What is signed: every field but the signature, behind the contract's name."""
        fields = asdict(replace(self, signature=b""))
        del fields["signature"]
        for field, absent in _LATER.items():
            if fields[field] == absent:
                del fields[field]
        return _DOMAIN + json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()

    def check(self) -> None:
        """Refuse what no honest writer says: a location, a digest that is no sha256, an unknown kind or state."""
        if self.location is not None:
            raise ModelRefused(
                "location.forbidden",
                "the announcement names a location; artefacts are found by digest in the worker's own store",
            )
        wrong = [
            field
            for field, right in (
                ("name", _NAME.match(self.name)),
                ("version", self.version >= 1),
                ("digest", _SHA256.match(self.digest)),
                ("feature_fingerprint", _SHA256.match(self.feature_fingerprint)),
                ("sequence", self.sequence >= 1),
                ("kind", self.kind in (RELEASE, ROLLBACK)),
                ("state", self.state in STATES),
                ("share", 0.0 < self.share <= 1.0),
            )
            if not right
        ]
        if wrong:
            raise ModelRefused("announcement.invalid", f"{', '.join(wrong)}: not a value of the contract")


def _text(column: Column) -> list[str]:
    return [value.decode("utf-8", "replace") for value in column.strings.to_list()]


def announcements(batch: Batch) -> list[Announcement]:
    """The rows of a decoded batch of ModelAnnouncement, in order."""
    located, expiring = batch["location"].mask(), batch["expires_at"].mask()
    locations = _text(batch["location"])
    expiries = batch["expires_at"].array.tolist()
    columns = {
        "name": _text(batch["name"]),
        "version": batch["version"].array.tolist(),
        "digest": _text(batch["digest"]),
        "feature_fingerprint": _text(batch["feature_fingerprint"]),
        "sequence": batch["sequence"].array.tolist(),
        "issued_at": batch["issued_at"].array.tolist(),
        "kind": _text(batch["kind"]),
        "location": [text if there else None for text, there in zip(locations, located, strict=True)],
        "expires_at": [at if there else None for at, there in zip(expiries, expiring, strict=True)],
        "key_id": _text(batch["key_id"]),
        "signature": batch["signature"].strings.to_list(),
        "state": _text(batch["state"]),
        "share": batch["share"].array.tolist(),
        "reason": _text(batch["reason"]),
    }
    return [
        Announcement(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)
    ]


def _strings(values: Sequence[str | None]) -> Column:
    valid = np.array([value is not None for value in values], np.bool_)
    packed = Strings.of([(value or "").encode() for value in values])
    return Column(packed, None if valid.all() else valid)


def _ints(values: Sequence[int | None]) -> Column:
    valid = np.array([value is not None for value in values], np.bool_)
    packed = np.array([value or 0 for value in values], np.int64)
    return Column(packed, None if valid.all() else valid)


def announcement_batch(rows: Sequence[Announcement]) -> Batch:
    """The rows as columns of ModelAnnouncement, ready to encode."""
    return Batch.of(
        {
            "name": _strings([row.name for row in rows]),
            "version": _ints([row.version for row in rows]),
            "digest": _strings([row.digest for row in rows]),
            "feature_fingerprint": _strings([row.feature_fingerprint for row in rows]),
            "kind": _strings([row.kind for row in rows]),
            "sequence": _ints([row.sequence for row in rows]),
            "location": _strings([row.location for row in rows]),
            "issued_at": _ints([row.issued_at for row in rows]),
            "expires_at": _ints([row.expires_at for row in rows]),
            "state": _strings([row.state for row in rows]),
            "share": Column(np.array([row.share for row in rows], np.float64)),
            "reason": _strings([row.reason for row in rows]),
            "key_id": _strings([row.key_id for row in rows]),
            "signature": Column(Strings.of([row.signature for row in rows])),
        }
    )
