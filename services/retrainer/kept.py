"""What retraining keeps: segments, manifests, step results and blobs, each under the sha256 of what it is.

`<url>/segments/<sha256>.parquet`, `manifests/<id>.json`, `blobs/<sha256>`, `steps/<key>.json`. All but steps are
named by their bytes; a step's result is named by its key. Files appear whole or not at all; the same one again is
harmless.
"""

import hashlib
import json
import re
from typing import Any, Literal
from uuid import uuid4

import fsspec
from fsspec.core import url_to_fs
from pydantic import JsonValue

from services.retrainer.core.recipe import DatasetManifest
from services.retrainer.core.steps import canonical
from shared.errors import Refused, Retry

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
Folder = Literal["segments", "manifests", "blobs", "steps"]
_ENDINGS: dict[Folder, str] = {"segments": ".parquet", "manifests": ".json", "blobs": "", "steps": ".json"}


class Kept:
    """One pipeline's datasets and step results below an fsspec URL."""

    def __init__(self, url: str) -> None:
        self._fs: fsspec.AbstractFileSystem
        self._fs, self._root = url_to_fs(url)
        self.url = url

    def put(self, folder: Folder, data: bytes) -> str:
        """Keep bytes under their sha256, which is returned."""
        digest = hashlib.sha256(data).hexdigest()
        self._write(self._path(folder, digest), data)
        return digest

    def get(self, folder: Folder, digest: str) -> bytes:
        """The bytes under their sha256.

        Raises:
            Refused: there are none, or others.
            Retry: the store is away.
        """
        data = self._read(self._path(folder, digest))
        if data is None and not self._fs.exists(self._root):
            raise Retry(f"there is no store of datasets at {self.url}")
        if data is None:
            raise Refused(f"the store has no {folder}/{digest}")
        if hashlib.sha256(data).hexdigest() != digest:
            raise Refused(f"{folder}/{digest} in the store is not what its name says; remove it")
        return data

    def put_step(self, key: str, result: JsonValue) -> None:
        """Keep a step's result under its key."""
        self._write(self._path("steps", key), canonical(result))

    def step(self, key: str) -> Any:
        """A step's result, None where it has not been kept."""
        data = self._read(self._path("steps", key))
        return None if data is None else json.loads(data)

    def put_manifest(self, manifest: DatasetManifest) -> str:
        """Keep a manifest and return its id."""
        return self.put("manifests", manifest.canonical())

    def manifest(self, dataset: str) -> DatasetManifest:
        """The manifest of an id, or of the only one that begins so; Refused where there is none."""
        if not _SHA256.match(dataset):
            found = [each for each in self.datasets() if dataset and each.startswith(dataset)]
            if len(found) != 1:
                raise Refused(
                    f"{len(found)} datasets begin with {dataset!r}; `millrace datasets list` has them"
                )
            dataset = found[0]
        return DatasetManifest.parse(self.get("manifests", dataset))

    def datasets(self) -> list[str]:
        """Every id, sorted."""
        folder = f"{self._root}/manifests"
        if not self._fs.isdir(folder):
            return []
        names = (str(path).rsplit("/", 1)[-1] for path in self._fs.ls(folder, detail=False))
        return sorted(name[:-5] for name in names if name.endswith(".json") and _SHA256.match(name[:-5]))

    def _path(self, folder: Folder, digest: str) -> str:
        if not _SHA256.match(digest):
            raise Refused("a sha256 is 64 hex digits")
        return f"{self._root}/{folder}/{digest}{_ENDINGS[folder]}"

    def _read(self, path: str) -> bytes | None:
        try:
            data: bytes = self._fs.cat_file(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Retry(f"the store of datasets cannot be read: {error}") from error
        return data

    def _write(self, path: str, data: bytes) -> None:
        try:
            self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            temporary = f"{path}.{uuid4().hex}.tmp"
            self._fs.pipe_file(temporary, data)
            self._fs.mv(temporary, path)
        except OSError as error:
            raise Retry(f"the store of datasets cannot be written: {error}") from error


def kept_of(artefacts_url: str, pipeline: str) -> Kept:
    """Where one pipeline's datasets lie: below the artefact store."""
    return Kept(f"{artefacts_url.rstrip('/')}/datasets/{pipeline}")
