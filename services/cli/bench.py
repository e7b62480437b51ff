"""`millrace bench`: speed and latency of the data path on this machine, beside a bare loop in the same run."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

OUT = Path("bench.json")
RATES = (1_000, 10_000)
# What a broker needs of small transactions until its code for them is compiled.
COLD_S = 45.0


def register(app: typer.Typer) -> None:
    """Add the group `bench`."""
    group = typer.Typer(invoke_without_command=True, help="Measure this machine.")
    group.callback()(bench)
    group.command("gpu")(gpu)
    app.add_typer(group, name="bench")


def gpu() -> None:
    """Inference fed from a broker in process, with models of 10 kB, 10 MB and 500 MB; on CPU without a GPU."""
    from tests.bench.bench_gpu import main

    main()


def bench(
    context: typer.Context,
    events: Annotated[int, typer.Option(help="Events of each throughput run.", min=10_000)] = 400_000,
    seconds: Annotated[float, typer.Option(help="Length of each latency run.", min=2.0)] = 15.0,
    partitions: Annotated[int, typer.Option(help="Partitions of each topic.", min=1)] = 2,
) -> None:
    """Throughput of each service and of all together, and latency; writes bench.json."""
    if context.invoked_subcommand is not None:
        return
    from services.cli.platform import running_platform

    with running_platform():
        found = _measure(events, seconds, partitions)
    OUT.write_text(json.dumps(found, indent=2) + "\n")
    _print(found)


def _measure(events: int, seconds: float, partitions: int) -> dict[str, Any]:
    from services.cli import benching

    def prepared(one_entity: bool, order: str = "event", count: int = events) -> benching.Prepared:
        # With one entity nothing asks for labels; with two, each event's label comes through as well.
        made = benching.prepare(count, benching.declare(one_entity, partitions, order), not one_entity)
        made.journey.replay(made.script)
        return made

    def latency(one_entity: bool, rate: float, length_s: float) -> dict[str, float]:
        made = benching.prepare(10_000, benching.declare(one_entity, partitions))
        return benching.latency(made, rate, length_s)

    found: dict[str, Any] = {"machine": benching.machine(), "events": events, "partitions": partitions}
    _say("warming up the broker")
    benching.over_backlog(prepared(True, count=events // 2), "predictions.v1")
    one = prepared(True)
    _say("peer: a bare transactional loop")
    found["peer"] = {"pass_through": benching.pass_through(one)}
    for service, out in (
        ("ingest", "accepted.v1"),
        ("features", "features.v1"),
        ("inference", "predictions.v1"),
    ):
        _say(f"{service} alone")
        found[service] = benching.over_backlog(one, out, [service])
    _say("all services, one entity")
    found["end_to_end"] = benching.over_backlog(prepared(True), "predictions.v1")
    _say("all services, two entities")
    found["two_entities"] = {"end_to_end": benching.over_backlog(prepared(False), "predictions.v1")}
    _say("all services, two entities, without the merge")
    found["two_entities"]["without_merge"] = benching.over_backlog(
        prepared(False, "arrival"), "predictions.v1"
    )
    _say(f"latency of a broker that has seen no small transactions yet, {COLD_S:.0f} s")
    found["latency_cold"] = {str(RATES[-1]): latency(True, RATES[-1], COLD_S)}
    for name, one_entity, place in (("one", True, found), ("two", False, found["two_entities"])):
        place["latency"] = {}
        for rate in RATES:
            _say(f"latency at {rate} events/s, {name} entities")
            place["latency"][str(rate)] = latency(one_entity, rate, seconds)
    peer = found["peer"]["pass_through"]["events_per_second"]
    for part in (found["ingest"], found["features"], found["inference"], found["end_to_end"]):
        part["of_pass_through"] = round(part["events_per_second"] / peer, 3)
    return found


def _say(text: str) -> None:
    typer.echo(f"bench: {text}", err=True)


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    speed = Table("run", "events/s", "of the bare loop", "CPU us/event by part")
    peer = found["peer"]["pass_through"]["events_per_second"]
    speed.add_row("bare transactional loop", f"{peer:,}", "1.0", "")
    two = found["two_entities"]
    rows = {
        "ingest alone": found["ingest"],
        "features alone": found["features"],
        "inference alone": found["inference"],
        "all, one entity": found["end_to_end"],
        "all, two entities": two["end_to_end"],
        "all, two entities, no merge": two["without_merge"],
    }
    for name, run in rows.items():
        used = ", ".join(f"{part} {u['cpu_us_per_event']}" for part, u in run["parts"].items())
        speed.add_row(name, f"{run['events_per_second']:,}", f"{run['events_per_second'] / peer:.2f}", used)
    delay = Table("latency, event to committed prediction", "p50 ms", "p95 ms", "p99 ms")
    runs = (
        ("one entity, cold broker", found["latency_cold"]),
        ("one entity", found["latency"]),
        ("two entities", two["latency"]),
    )
    for name, by_rate in runs:
        for rate, got in by_rate.items():
            delay.add_row(
                f"{rate} events/s, {name}", *(str(got.get(k)) for k in ("p50_ms", "p95_ms", "p99_ms"))
            )
    console = Console()
    console.print(speed)
    console.print(delay)
