"""Model artefacts by content address, under any fsspec URL: `<url>/<digest>/manifest.json` and its files.

A reader asks for a digest and gets exactly the bytes that hash to it, or ModelRefused. The store's address
comes from settings alone; nothing that an announcement says is ever opened. The manifest is written last, so
an artefact is there whole or not at all.
"""

import hashlib
import re
from uuid import uuid4

import fsspec
from fsspec.core import url_to_fs

from shared.errors import Retry
from shared.models.manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    Artefact,
    FileEntry,
    Manifest,
)
from shared.models.safety import ModelRefused

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


class ArtefactMissing(Retry):
    """Nothing lies under this digest, yet; the announcement may have been faster than the store."""


class ArtefactStore:
    """Artefacts below one address; `max_bytes` caps what one artefact may make a reader hold."""

    def __init__(self, url: str, max_bytes: int = 4 << 30) -> None:
        self._fs: fsspec.AbstractFileSystem
        self._fs, self._root = url_to_fs(url)
        self._local = "file" in _protocols(self._fs)
        self._max_bytes = max_bytes

    def put(self, artefact: Artefact) -> str:
        """Write an artefact after verifying it, and give its digest; again is harmless and repairs it.

        ModelRefused where its bytes are not what it says, Retry where the store cannot be written.
        """
        artefact.verify()
        digest = artefact.digest
        folder = self._folder(digest)
        try:
            self._fs.makedirs(folder, exist_ok=True)
            for name, data in artefact.files.items():
                self._write(f"{folder}/{name}", data)
            self._write(f"{folder}/{MANIFEST}", artefact.manifest.canonical())
        except OSError as error:
            raise Retry(f"the artefact store cannot be written: {error}") from error
        return digest

    def get(self, digest: str) -> Artefact:
        """Read and verify an artefact.

        ArtefactMissing where there is none (yet), ModelRefused where its bytes are not what the digest says
        or are larger than the cap, Retry where the store cannot be reached.
        """
        folder = self._folder(digest)
        try:
            raw = self._read(f"{folder}/{MANIFEST}", MAX_MANIFEST_BYTES)
            if hashlib.sha256(raw).hexdigest() != digest:
                raise ModelRefused("digest.mismatch", f"{MANIFEST} does not hash to {digest}")
            manifest = Manifest.parse(raw)
            total = sum(entry.size for entry in manifest.files.values())
            if total > self._max_bytes:
                raise ModelRefused("resources.memory", f"{total} bytes of files, at most {self._max_bytes}")
            files = {n: self._read_entry(f"{folder}/{n}", e) for n, e in manifest.files.items()}
        except FileNotFoundError as error:
            raise ArtefactMissing(f"the artefact store has nothing whole under {digest}") from error
        except OSError as error:
            raise Retry(f"the artefact store cannot be read: {error}") from error
        artefact = Artefact(manifest, files)
        artefact.verify()
        return artefact

    def present(self) -> bool:
        """Whether the store can be seen at all; where it cannot, what seems to be missing may be there."""
        return bool(self._fs.exists(self._root))

    def digests(self) -> list[str]:
        """Every digest that has a manifest, sorted."""
        if not self._fs.isdir(self._root):
            return []
        paths = self._fs.ls(self._root, detail=False)
        names = {str(path).rstrip("/").rsplit("/", 1)[-1] for path in paths}
        whole = (n for n in names if _DIGEST.match(n) and self._fs.exists(f"{self._root}/{n}/{MANIFEST}"))
        return sorted(whole)

    def _folder(self, digest: str) -> str:
        if not _DIGEST.match(digest):
            raise ModelRefused("announcement.invalid", "a digest is 64 hex digits")
        return f"{self._root}/{digest}"

    def _read_entry(self, path: str, entry: FileEntry) -> bytes:
        size, name = int(self._fs.size(path)), path.rsplit("/", 1)[-1]
        if size != entry.size:
            raise ModelRefused("digest.mismatch", f"{name} has {size} bytes, not {entry.size}")
        return self._read(path, entry.size)

    def _read(self, path: str, cap: int) -> bytes:
        if int(self._fs.size(path)) > cap:
            raise ModelRefused("manifest.invalid", f"{path.rsplit('/', 1)[-1]} is larger than {cap} bytes")
        data: bytes = self._fs.cat_file(path, start=0, end=cap)
        return data

    def _write(self, path: str, data: bytes) -> None:
        if not self._local:  # object stores show a file whole or not at all
            self._fs.pipe_file(path, data)
            return
        temporary = f"{path}.{uuid4().hex}.tmp"
        self._fs.pipe_file(temporary, data)
        self._fs.mv(temporary, path)


def _protocols(fs: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    protocol = fs.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
