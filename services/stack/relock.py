"""Makes `jars.sha256` anew after a change of version: `python -m services.stack.relock`, then read the
difference.

jgo's resolver prefers the older kafka-clients that a transitive dependency names, so that one is pinned
beside
Kafka itself, and a list with two versions of Kafka is refused.
"""

import sys
from pathlib import Path

from services.stack.jars import LOCK, Jar, cache_folder, maven, sha256_of
from shared.errors import Refused

KAFKA = "4.3.1"
LOG4J = "2.25.3"
REGISTRY = "3.3.3"
ROOTS = (
    f"org.apache.kafka:kafka_2.13:{KAFKA}",
    f"org.apache.kafka:kafka-clients:{KAFKA}",
    f"org.apache.logging.log4j:log4j-slf4j-impl:{LOG4J}",
    f"org.apache.logging.log4j:log4j-core:{LOG4J}",
)
REGISTRY_JAR = Jar("io.apicurio", "apicurio-registry-app", REGISTRY, "all", "tar.gz", "")


def resolve() -> list[Jar]:
    """Every jar of the broker, transitively, and the registry's archive, each with the hash of what came."""
    context = maven(cache_folder(), progress=None)
    inputs, transitive = context.resolver.resolve([context.create_dependency(root) for root in ROOTS])
    jars = [
        Jar(d.groupId, d.artifactId, d.version, "", "jar", "")
        for d in (*inputs, *transitive)
        if d.type == "jar" and d.scope in ("compile", "runtime", None)
    ]
    wanted = sorted({*jars, REGISTRY_JAR})
    return [jar.with_hash(sha256_of(Path(jar.artifact(context).resolve()))) for jar in wanted]


def check_versions(jars: list[Jar]) -> None:
    """Raise `Refused` unless all of Kafka's own jars have one version."""
    versions = {jar.version for jar in jars if jar.group == "org.apache.kafka"}
    if versions != {KAFKA}:
        raise Refused(f"Kafka's jars have the versions {sorted(versions)}; pin each one to {KAFKA} in ROOTS")


def main() -> int:
    """Write the list."""
    jars = resolve()
    check_versions(jars)
    LOCK.write_text("".join(f"{jar.sha256}  {jar.coordinate}\n" for jar in jars))
    sys.stderr.write(f"{len(jars)} entries written to {LOCK.name}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
