"""Generated card payments in the form of the Fraud Detection Handbook's raw data, for demonstrations.

Customers and terminals lie in a square; a customer pays at terminals near by, some times a day, amounts
around its own mean. Three kinds of fraud, as in the Handbook's chapter on its simulator (Le Borgne, Siblini,
Lebichot, Bontempi, Université Libre de Bruxelles, 2022): amounts over 220; terminals that are compromised for
28 days; customers whose card is stolen for 14 days, a third of whose payments are then five times as large.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class World:
    """How much of everything; equal worlds give equal payments."""

    customers: int = 1_000
    terminals: int = 2_000
    days: int = 60
    seed: int = 7
    reach: float = 5.0
    """How far a customer goes, in a square of side 100."""


def epoch_s(world: World, now_s: float) -> int:
    """The start of the world's first day such that its last day ended at the last midnight before `now_s`."""
    return (int(now_s) // DAY_S - world.days) * DAY_S


def payments(world: World) -> pl.DataFrame:
    """All payments in time order, with the columns of the Handbook's raw files."""
    random = np.random.default_rng(world.seed)
    homes = random.uniform(0, 100, (world.customers, 2))
    shops = random.uniform(0, 100, (world.terminals, 2))
    mean = random.uniform(5, 100, world.customers)
    rate = random.uniform(0, 4, world.customers)
    counts = random.poisson(rate[:, None], (world.customers, world.days))
    customer, day = (np.repeat(index.ravel(), counts.ravel()) for index in np.indices(counts.shape))
    second = random.normal(DAY_S / 2, 20_000, customer.size).astype(np.int64)
    inside = (second > 0) & (second < DAY_S)
    customer, day, second = customer[inside], day[inside], second[inside]
    amount = np.abs(random.normal(mean[customer], mean[customer] / 2))
    near = [np.flatnonzero(np.hypot(*(shops - home).T) < world.reach) for home in homes]
    nearest = np.array([np.argmin(np.hypot(*(shops - home).T)) for home in homes])
    draw = random.random(customer.size)
    terminal = np.array(
        [
            near[c][int(d * near[c].size)] if near[c].size else nearest[c]
            for c, d in zip(customer, draw, strict=True)
        ]
    )
    order = np.argsort(day * DAY_S + second, kind="stable")
    return _with_fraud(
        pl.DataFrame(
            {
                "TX_TIME_SECONDS": (day * DAY_S + second)[order],
                "CUSTOMER_ID": customer[order],
                "TERMINAL_ID": terminal[order],
                "TX_AMOUNT": amount.round(2)[order],
            }
        ).with_row_index("TRANSACTION_ID"),
        world,
        random,
    )


def _with_fraud(frame: pl.DataFrame, world: World, random: np.random.Generator) -> pl.DataFrame:
    day = frame["TX_TIME_SECONDS"].to_numpy() // DAY_S
    customer, terminal = frame["CUSTOMER_ID"].to_numpy(), frame["TERMINAL_ID"].to_numpy()
    amount = frame["TX_AMOUNT"].to_numpy().copy()
    scenario = np.where(amount > 220, 1, 0)
    for today in range(world.days):
        for shop in random.choice(world.terminals, max(1, world.terminals // 5_000), replace=False):
            hit = (terminal == shop) & (day >= today) & (day < today + 28)
            scenario[hit] = 2
        for victim in random.choice(world.customers, max(1, world.customers // 1_700), replace=False):
            rows = np.flatnonzero((customer == victim) & (day >= today) & (day < today + 14))
            stolen = random.choice(rows, rows.size // 3, replace=False)
            amount[stolen] *= 5
            scenario[stolen] = 3
    return frame.with_columns(
        TX_AMOUNT=pl.Series(amount.round(2)),
        TX_FRAUD=pl.Series((scenario > 0).astype(np.int64)),
        TX_FRAUD_SCENARIO=pl.Series(scenario.astype(np.int64)),
    )
