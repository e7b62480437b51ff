"""Who may release models: Ed25519 keys in a folder, announcements signed with one, verified with any trusted.

`<folder>/signing.pem` is this installation's private key; each `<folder>/trusted/*.pem` is a public key that
inference workers obey. Losing the folder means that nothing can be released here until a new key is trusted.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from shared.errors import Refused
from shared.models.announcement import Announcement
from shared.models.safety import ModelRefused
from shared.settings import home

TrustedKeys = Mapping[str, Ed25519PublicKey]


def key_id(public: Ed25519PublicKey) -> str:
    """The first 16 hex digits of sha256 of the raw public key."""
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def sign(announcement: Announcement, key: Ed25519PrivateKey) -> Announcement:
    """The announcement with this key's id and signature."""
    named = replace(announcement, key_id=key_id(key.public_key()), signature=b"")
    return replace(named, signature=key.sign(named.canonical()))


def verify(announcement: Announcement, trusted: TrustedKeys, now_ms: int) -> None:
    """Refuse an announcement that no trusted key stands behind, or that had expired at `now_ms`.

    Give the Kafka timestamp of the record as `now_ms`: a worker that reads the topic again later must come
    to the same answer.
    """
    if not announcement.signature:
        raise ModelRefused("signature.missing", "the announcement is not signed")
    key = trusted.get(announcement.key_id)
    if key is None:
        raise ModelRefused(
            "signature.unknown_key",
            f"key {announcement.key_id[:16]!r} is not trusted; put its public key into the trusted folder",
        )
    try:
        key.verify(announcement.signature, announcement.canonical())
    except InvalidSignature as error:
        raise ModelRefused(
            "signature.invalid", f"not what key {announcement.key_id} signed: the record was changed"
        ) from error
    if announcement.expires_at is not None and now_ms > announcement.expires_at:
        raise ModelRefused(
            "signature.expired", f"expired {now_ms - announcement.expires_at} ms before it was announced"
        )


@dataclass(frozen=True, slots=True)
class KeyFolder:
    """The keys of one installation."""

    path: Path

    @staticmethod
    def of(setting: str = "") -> "KeyFolder":
        """The folder that a setting names; `$MILLRACE_HOME/keys` where it names none."""
        return KeyFolder(Path(setting) if setting else home() / "keys")

    def signer(self) -> Ed25519PrivateKey:
        """The private key; made, and trusted, when there is none yet."""
        private = self.path / "signing.pem"
        if not private.is_file():
            self._create(private)
        key = _read(private, private=True)
        assert isinstance(key, Ed25519PrivateKey)  # noqa: S101 - _read refuses anything else
        return key

    def trust(self, public: Ed25519PublicKey) -> Path:
        """Let workers obey announcements of this key; gives the file that says so."""
        path = self.path / "trusted" / f"{key_id(public)}.pem"
        pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        _write_once(path, pem, 0o644)
        return path

    def trusted(self) -> dict[str, Ed25519PublicKey]:
        """Every trusted public key by its id; Refused when a file is no Ed25519 public key."""
        found: dict[str, Ed25519PublicKey] = {}
        for path in sorted((self.path / "trusted").glob("*.pem")):
            key = _read(path, private=False)
            assert isinstance(key, Ed25519PublicKey)  # noqa: S101 - _read refuses anything else
            found[key_id(key)] = key
        return found

    def _create(self, private: Path) -> None:
        pem = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        _write_once(private, pem, 0o600)
        key = _read(private, private=True)
        assert isinstance(key, Ed25519PrivateKey)  # noqa: S101 - _read refuses anything else
        self.trust(key.public_key())


def _read(path: Path, *, private: bool) -> Ed25519PrivateKey | Ed25519PublicKey:
    data = path.read_bytes()
    try:
        if private:
            key: object = serialization.load_pem_private_key(data, None)
        else:
            key = serialization.load_pem_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Refused(f"{path} is no PEM key ({error}); remove it or put the right file there") from error
    if not isinstance(key, Ed25519PrivateKey if private else Ed25519PublicKey):
        raise Refused(f"{path} is not an Ed25519 key; remove it or put the right file there")
    return key


def _write_once(path: Path, data: bytes, mode: int) -> None:
    """Write a whole file or nothing; of two writers at once the first wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return
    finally:
        temporary.unlink()


class LiveKeys(Mapping[str, Ed25519PublicKey]):
    """The trusted keys of a folder as it is now: a key that is not known yet is looked for again.

    A worker may start before the first key exists, and a new one must not need a restart.
    """

    def __init__(self, folder: KeyFolder) -> None:
        self._folder = folder
        self._known: dict[str, Ed25519PublicKey] = folder.trusted()

    def __getitem__(self, key_id: str) -> Ed25519PublicKey:
        if key_id not in self._known:
            self._known = self._folder.trusted()
        return self._known[key_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)
