"""The embedded stack: a real Kafka, schema registry and Redis in the background, without Docker and without
root.

Everything lies below one data folder: `ports.json`, `endpoints.json`, and for each part its data, logs and
pidfile.
One lock orders all that starts and stops; whatever a killed command left behind is found again and taken
over.
"""

import shutil
import signal
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from services.stack import diagnosis, jars, parts, ports, process
from services.stack.endpoints import Endpoints, endpoints_file
from services.stack.files import locked
from services.stack.jars import Progress
from services.stack.parts import Part
from services.stack.process import Handle
from shared.errors import Refused, Retry

NAMES = ("kafka", "registry", "redis")
READY_S = 90.0
STOP_S = 20.0
PORT_FREE_S = 5.0
POLL_S = 0.05
NEEDED_BYTES = 512 * 2**20
BUSY = "another `millrace up` or `millrace down` is at work in this folder"


@dataclass(frozen=True, slots=True)
class PartStatus:
    """What one part is doing: `running`, `silent` (runs but does not answer) or `stopped`."""

    name: str
    state: str
    detail: str
    pid: int | None
    port: int | None
    log: Path


class PortTaken(Retry):
    """Somebody listened on a chosen port before the part did."""


def start(home: Path, progress: Progress | None = None) -> Endpoints:
    """Bring up what is not up yet and return when every part answers; calling it again changes nothing.

    Raises `Refused` or `Retry` with what is wrong and what to do; what this call started is stopped then.
    """
    home = home.absolute()
    _check_space(home)
    with locked(home / "stack.lock", BUSY):
        try:
            return _start(home, progress)
        except PortTaken:
            return _start(home, progress)


def stop(home: Path) -> list[str]:
    """Stop every part and return the names of those that ran; none is left when this returns."""
    home = home.absolute()
    if not home.is_dir():
        return []
    with locked(home / "stack.lock", BUSY):
        running = find_running(home)
        process.stop_all(list(running.values()), STOP_S)
        for name in NAMES:
            pidfile(home, name).unlink(missing_ok=True)
        endpoints_file(home).unlink(missing_ok=True)
        return list(running)


def status(home: Path) -> list[PartStatus]:
    """The state of each part, asked now."""
    home = home.absolute()
    chosen = ports.known(home / "ports.json")
    with ThreadPoolExecutor(len(NAMES)) as pool:
        return list(pool.map(lambda name: _status(home, name, chosen), NAMES))


def kill_broker(home: Path) -> None:
    """`kill -9` the broker; its data stays. Raises `Refused` when it does not run."""
    handle = process.recall(pidfile(home.absolute(), "kafka"))
    if handle is None:
        raise Refused(f"no broker runs in {home}; start it with `millrace up`")
    handle.signal(signal.SIGKILL)
    process.wait_gone([handle], STOP_S)


def restart_broker(home: Path) -> None:
    """Start the broker again on its port and data, and return when it answers."""
    home = home.absolute()
    with locked(home / "stack.lock", BUSY):
        chosen = ports.known(home / "ports.json")
        if chosen.keys() < set(ports.NAMES):
            raise Refused(f"nothing was ever started in {home}; start it with `millrace up`")
        if process.recall(pidfile(home, "kafka")) is None:
            _check_ports_free(chosen)
            part = parts.kafka(
                home,
                chosen["kafka"],
                chosen["controller"],
                jars.fetch(jars.broker_jars(), jars.cache_folder()),
            )
            _wait_ready(part, _launch(home, part))


def find_running(home: Path) -> dict[str, Handle]:
    """The parts that run, also those whose start was killed before it could write down their pid."""
    found = {name: process.recall(pidfile(home, name)) for name in NAMES}
    if None in found.values():
        for name, handle in process.find_marked(home, NAMES).items():
            if found[name] is None:
                process.remember(handle, pidfile(home, name))
                found[name] = handle
    return {name: handle for name, handle in found.items() if handle is not None}


def pidfile(home: Path, name: str) -> Path:
    """Where a part's identity is kept."""
    return home / name / "pid"


def _start(home: Path, progress: Progress | None) -> Endpoints:
    """One attempt, under the lock."""
    running = find_running(home)
    chosen = ports.settle(home / "ports.json", keep=_ports_of(running))
    endpoints = Endpoints.of(home, chosen)
    if len(running) < len(NAMES) or not _all_answer(home, chosen):
        _bring_up(home, chosen, running, progress)
    endpoints.write()
    return endpoints


def _bring_up(
    home: Path, chosen: dict[str, int], running: Mapping[str, Handle], progress: Progress | None
) -> None:
    """Start the parts that do not run and wait for all; on failure stop those started here."""
    broker_jars = jars.fetch(jars.broker_jars(), jars.cache_folder(), progress)
    program = jars.unpack_registry(jars.cache_folder(), progress)
    makers: dict[str, Callable[[], Part]] = {
        "registry": lambda: parts.registry(home, chosen["registry"], program),
        "redis": lambda: parts.redis(home, chosen["redis"]),
        "kafka": lambda: parts.kafka(home, chosen["kafka"], chosen["controller"], broker_jars),
    }
    started: dict[str, Handle] = {}
    waits = []
    try:
        with ThreadPoolExecutor(len(NAMES)) as pool:
            for name, make in makers.items():
                part = make()
                handle = running.get(name)
                if handle is None:
                    handle = started[name] = _launch(home, part)
                waits.append(pool.submit(_wait_ready, part, handle))
        for wait in waits:
            wait.result()
    except BaseException:
        process.stop_all(list(started.values()), STOP_S)
        raise


def _launch(home: Path, part: Part) -> Handle:
    """Start a part and write down its identity."""
    handle = process.spawn(part.command, part.log, part.environment)
    process.remember(handle, pidfile(home, part.name))
    return handle


def _wait_ready(part: Part, handle: Handle) -> None:
    """Ask until the part answers; raises when it ends first or stays silent."""
    deadline = time.monotonic() + READY_S
    while True:
        try:
            part.ask()
        except Exception as error:
            if not handle.alive:
                raise _died(part) from error
            if time.monotonic() > deadline:
                raise Retry(
                    f"{part.name} runs but did not answer within {READY_S:.0f} s ({error}); see {part.log},"
                    " then `millrace down` and `millrace up`"
                ) from error
            time.sleep(POLL_S)
        else:
            return


def _died(part: Part) -> Exception:
    """Why a part ended at its start, from the end of its log."""
    cause = diagnosis.explain(part.log)
    if cause is diagnosis.PORT:
        return PortTaken(f"{part.name}: its port was taken meanwhile; run the command again")
    return Refused(f"{part.name} ended while starting: {cause.what}; {cause.next_step}. Its log: {part.log}")


def _status(home: Path, name: str, chosen: Mapping[str, int]) -> PartStatus:
    log = home / name / "out.log"
    handle = process.recall(pidfile(home, name))
    port = chosen.get(name)
    if handle is None or port is None:
        return PartStatus(name, "stopped", "start it with `millrace up`", None, port, log)
    try:
        return PartStatus(name, "running", _ask(name, port), handle.pid, port, log)
    except Exception as error:
        return PartStatus(name, "silent", f"{type(error).__name__}: {error}", handle.pid, port, log)


def _ask(name: str, port: int) -> str:
    """The part's own answer to its question."""
    match name:
        case "kafka":
            return parts.ask_kafka({"bootstrap.servers": f"127.0.0.1:{port}"})
        case "registry":
            return parts.ask_registry(parts.embedded_registry(port))
        case _:
            return parts.ask_redis(f"redis://127.0.0.1:{port}/0")


def _all_answer(home: Path, chosen: Mapping[str, int]) -> bool:
    return all(_status(home, name, chosen).state == "running" for name in NAMES)


def _ports_of(running: Mapping[str, Handle]) -> set[str]:
    """The names of the ports that our own running parts hold."""
    return {*running, *(("controller",) if "kafka" in running else ())}


def _check_ports_free(chosen: Mapping[str, int]) -> None:
    """Wait a moment for the broker's ports; raises `PortTaken` when somebody else has them."""
    deadline = time.monotonic() + PORT_FREE_S
    for name in ("kafka", "controller"):
        while not ports.is_free(chosen[name]):
            if time.monotonic() > deadline:
                raise PortTaken(
                    f"port {chosen[name]} of the broker is taken by another program; stop it, try again"
                )
            time.sleep(POLL_S)


def _check_space(home: Path) -> None:
    """Refuse before anything half-written exists."""
    existing = next(folder for folder in (home, *home.parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if free < NEEDED_BYTES:
        raise Refused(
            f"{existing} has {free / 2**20:.0f} MB free and the stack needs {NEEDED_BYTES / 2**20:.0f} MB;"
            " free some space or set MILLRACE_HOME to a folder on another disk"
        )
