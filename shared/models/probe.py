"""Try a model in a process of its own, with its memory and time capped, before a worker trusts it.

`python -m shared.models.probe` reads one JSON line and the artefact's bytes from standard input, loads the
model as a worker would and answers with one JSON line. Whatever the model does there, the worker lives. Its
imports take seconds: a `Waiting` has them done before there is a model to try.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from shared.models.manifest import Artefact, Manifest
from shared.models.safety import ModelRefused

_ROOT = Path(__file__).resolve().parents[2]
Trial = subprocess.Popen[bytes]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a worker grants a model, whatever the model's manifest asks for."""

    memory_bytes: int = 4 << 30
    row_seconds: float = 0.5
    # A golden run may take this many times what the manifest says.
    latency_factor: float = 10.0
    timeout_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Proof:
    """What a probe measured: seconds a row on the golden samples."""

    row_seconds: float


def new_trial() -> Trial:
    """A process that tries one model; it ends when its standard input does."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    paths = [str(_ROOT), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return subprocess.Popen(
        [sys.executable, "-m", "shared.models.probe"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )


class Waiting:
    """Keeps one process for the next trial, so that the trial need not wait for its imports."""

    def __init__(self) -> None:
        self._next: Trial | None = None

    def prepare(self) -> None:
        """Start it, if it does not wait already."""
        if self._next is None:
            self._next = new_trial()

    def __call__(self) -> Trial:
        """The one that waits, or a new one."""
        found, self._next = self._next, None
        if found is None or found.poll() is None:
            return found or new_trial()
        found.communicate()
        return new_trial()


def probe(
    artefact: Artefact,
    fingerprint: str,
    limits: Limits,
    remember: Path | None = None,
    trial: Callable[[], Trial] = new_trial,
) -> Proof:
    """Load and run the golden samples in a capped process; ModelRefused when it does not fit.

    With `remember`, a folder of this host, a digest that passed under the same limits is not tried again.
    """
    budget = artefact.manifest.budget
    if budget.memory_bytes > limits.memory_bytes:
        raise ModelRefused(
            "resources.memory",
            f"asks for {budget.memory_bytes} bytes, this worker grants {limits.memory_bytes}",
        )
    if budget.row_seconds > limits.row_seconds:
        raise ModelRefused(
            "resources.latency",
            f"asks for {budget.row_seconds:g} s a row, this worker grants {limits.row_seconds:g}",
        )
    note = None if remember is None else remember / _note_name(artefact.digest, fingerprint, limits)
    if note is not None and note.is_file():
        return Proof(float(note.read_text()))
    proof = _run(artefact, fingerprint, limits, trial)
    if note is not None:
        _remember(note, proof)
    return proof


def _note_name(digest: str, fingerprint: str, limits: Limits) -> str:
    terms = json.dumps([fingerprint, asdict(limits)], sort_keys=True).encode()
    return f"{digest}-{sha256(terms).hexdigest()[:16]}"


def _remember(note: Path, proof: Proof) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    temporary = note.with_name(f".{note.name}.{os.getpid()}")
    temporary.write_text(repr(proof.row_seconds))
    temporary.replace(note)


def _run(artefact: Artefact, fingerprint: str, limits: Limits, trial: Callable[[], Trial]) -> Proof:
    names = sorted(artefact.files)
    head = {
        "manifest": artefact.manifest.canonical().decode(),
        "fingerprint": fingerprint,
        "latency_factor": limits.latency_factor,
        "files": [[name, len(artefact.files[name])] for name in names],
    }
    payload = b"".join([json.dumps(head).encode(), b"\n", *(artefact.files[name] for name in names)])
    with trial() as process:
        try:
            out, said = process.communicate(payload, limits.timeout_s)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise ModelRefused("resources.latency", f"no answer within {limits.timeout_s:g} s") from error
        except BaseException:
            process.kill()
            raise
    return _answer(out, said, process.returncode)


def _answer(out: bytes, said: bytes, code: int) -> Proof:
    lines = out.splitlines()
    if not lines:
        last = said.decode(errors="replace").strip().rsplit("\n", 1)[-1][:200]
        raise ModelRefused("resources.memory", f"its trial process ended with {code}: {last}")
    answer = json.loads(lines[-1])
    if "reason" in answer:
        raise ModelRefused(answer["reason"], answer["detail"])
    return Proof(answer["row_seconds"])


def _cap_memory(more_bytes: int) -> None:
    """Allow this much on top of what the process has mapped now."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    cap = pages * resource.getpagesize() + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (cap, cap))


def _serve(line: bytes, stream: BinaryIO) -> dict[str, object]:
    head = json.loads(line)
    manifest = Manifest.parse(head["manifest"].encode())
    artefact = Artefact(manifest, {name: stream.read(size) for name, size in head["files"]})
    artefact.verify()

    import torch

    from shared.models.loading import golden_samples, load_model
    from shared.models.manifest import Trees

    if isinstance(manifest.architecture, Trees):  # what it maps is not the model's
        _import_runtime()
    if sys.platform == "linux":
        _cap_memory(manifest.budget.memory_bytes)
    try:
        classes = manifest.architecture.classes
        model = load_model(artefact, head["fingerprint"], manifest.feature_names, classes=classes)
        inputs = torch.from_numpy(golden_samples(artefact)[0])
        with torch.inference_mode():
            row_seconds = min(_timed(model.network, inputs) for _ in range(3)) / len(inputs)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        detail = f"needs more than the {manifest.budget.memory_bytes} bytes that it declares"
        return {"reason": "resources.memory", "detail": detail}
    allowed = manifest.budget.row_seconds * head["latency_factor"]
    if row_seconds > allowed:
        detail = f"takes {row_seconds:.2g} s a row on its golden samples, {allowed:.2g} is allowed"
        return {"reason": "resources.latency", "detail": detail}
    return {"row_seconds": row_seconds}


def _import_runtime() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ModelRefused("runtime.missing", f"this host cannot serve trees: {error}") from error


def _timed(network: object, inputs: object) -> float:
    assert callable(network)  # noqa: S101 - for the type checker
    begin = time.perf_counter()
    network(inputs)
    return time.perf_counter() - begin


def _make_ready() -> None:
    """Do what every trial needs."""
    import torch

    import shared.models.loading  # noqa: F401

    torch.set_num_threads(1)
    with suppress(ModelRefused):  # only trees need it: said when one comes
        _import_runtime()


def main() -> None:
    """Answer one probe on standard output; nothing where the caller has left."""
    _make_ready()
    line = sys.stdin.buffer.readline()
    if not line:
        return
    try:
        answer = _serve(line, sys.stdin.buffer)
    except ModelRefused as refused:
        answer = {"reason": refused.reason, "detail": refused.detail}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
