"""Fixtures of the tests that need real services: one embedded stack a session, started when asked for."""

import atexit
import os
import re
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.stack import embedded
from services.stack.endpoints import Endpoints, read_endpoints


@pytest.fixture(scope="session")
def stack() -> Iterator[Endpoints]:
    """A running stack; `MILLRACE_HOME` points to it for this process and its children.

    With `MILLRACE_TEST_HOME` set, the stack that runs in that folder is used and left running.
    """
    before = os.environ.get("MILLRACE_HOME")
    shared = os.environ.get("MILLRACE_TEST_HOME")
    if shared:
        os.environ["MILLRACE_HOME"] = shared
        yield read_endpoints(Path(shared).absolute())
    else:
        yield from _own_stack()
    if before is None:
        os.environ.pop("MILLRACE_HOME", None)
    else:
        os.environ["MILLRACE_HOME"] = before


@pytest.fixture
def pipeline_name(request: pytest.FixtureRequest) -> str:
    """A name that no other test uses: topics, groups and subjects that start with it are the test's own."""
    word = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:24].strip("-")
    return f"{word}-{uuid.uuid4().hex[:8]}"


def _own_stack() -> Iterator[Endpoints]:
    """A stack in a folder of its own, gone at the end however the session ends."""
    with tempfile.TemporaryDirectory(prefix="millrace-test-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        atexit.register(embedded.stop, home)
        os.environ["MILLRACE_HOME"] = folder
        try:
            yield embedded.start(home)
        finally:
            embedded.stop(home)
            atexit.unregister(embedded.stop)
