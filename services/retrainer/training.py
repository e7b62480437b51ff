"""The training process: reads jobs as lines of JSON, answers each with one, and reads no topic.

`python -m services.retrainer.training MEMORY_BYTES NICENESS`. A job names its inputs by sha256 and its result
does the same, so the same job gives the same answer. What it cannot do it says as `failed`: `retry` where a
store is away, so that the same job is asked again. It ends when its caller does. Before it says that it is ready
it has fitted each kind once, so that no job waits for an import.
"""

import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from pydantic import JsonValue

from services.retrainer.jobs import JOBS
from services.retrainer.rehearsal import rehearse
from shared.errors import MillraceError, Retry

Answer = dict[str, JsonValue]


def main() -> None:
    """Answer jobs until the caller is gone."""
    memory_bytes, niceness = int(sys.argv[1]), int(sys.argv[2])
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not look like an answer
    if niceness:
        os.nice(niceness)
    rehearse()
    _cap_memory(memory_bytes)
    jobs: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    _say(out, {"ready": True})
    while True:
        _say(out, answer(json.loads(jobs.get())))


def _say(out: TextIO, what: Answer) -> None:
    out.write(json.dumps(what) + "\n")
    out.flush()


def answer(job: dict[str, Any], known: dict[str, Callable[[dict[str, Any]], JsonValue]] = JOBS) -> Answer:
    """What became of one job."""
    try:
        return {"done": known[job["do"]](job)}
    except Retry as away:
        return {"failed": "retry", "detail": str(away)}
    except MillraceError as refused:
        return {"failed": "refused", "detail": str(refused)}
    except MemoryError:
        return {"failed": "memory", "detail": "more memory than [policy.retrain] allows"}
    except RuntimeError as error:
        if "memory" not in str(error):
            raise
        return {"failed": "memory", "detail": str(error).splitlines()[0]}


def _listen(jobs: "queue.SimpleQueue[str]") -> None:
    for line in sys.stdin:
        jobs.put(line)
    os._exit(0)  # the caller is gone; what was kept so far is kept


def _cap_memory(memory_bytes: int) -> None:
    """Allow as much data on top of what importing took; the caller watches what is resident besides."""
    if sys.platform != "linux":
        return
    import resource

    data = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (data + memory_bytes, data + memory_bytes))


if __name__ == "__main__":
    main()
