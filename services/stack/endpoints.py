"""Where the embedded stack's services can be reached, as written for every other process."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.stack.files import write_whole
from shared.errors import Refused


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The addresses of broker, registry and Redis, and the data folder that they belong to."""

    home: Path
    bootstrap_servers: str
    registry_url: str
    redis_url: str

    @classmethod
    def of(cls, home: Path, ports: dict[str, int]) -> "Endpoints":
        """The addresses that follow from the ports."""
        return cls(
            home,
            f"127.0.0.1:{ports['kafka']}",
            f"http://127.0.0.1:{ports['registry']}/apis/ccompat/v7",
            f"redis://127.0.0.1:{ports['redis']}/0",
        )

    def as_settings(self) -> dict[str, Any]:
        """In the form that `shared.settings` reads."""
        return {
            "kafka": {"bootstrap_servers": self.bootstrap_servers},
            "registry": {"url": self.registry_url},
            "redis": {"url": self.redis_url},
        }

    def write(self) -> None:
        """Write the file that `shared.settings` reads."""
        write_whole(endpoints_file(self.home), json.dumps(self.as_settings(), indent=2) + "\n")


def endpoints_file(home: Path) -> Path:
    """The file's place."""
    return home / "endpoints.json"


def read_endpoints(home: Path) -> Endpoints:
    """What a running stack wrote; raises `Refused` when none runs in `home`."""
    path = endpoints_file(home)
    try:
        written = json.loads(path.read_text())
        return Endpoints(
            home,
            written["kafka"]["bootstrap_servers"],
            written["registry"]["url"],
            written["redis"]["url"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused(f"no stack runs in {home}; start one: MILLRACE_HOME={home} millrace up") from error
