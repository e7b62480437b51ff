"""commands.v1 as the retrainer reads it: anybody with a client writes there, and not all of it is a command."""

from contextlib import suppress

from shared.control.records import Record, Records
from shared.errors import Fatal
from shared.runtime.polled import Polled


def commands_of(records: Records, polled: Polled) -> list[Record]:
    """The commands among the records, in order.

    What is none (a tombstone, garbage, another schema) is passed over: the controller reads the same topic and
    puts it among the dead letters.
    """
    found = []
    for value, offset in zip(polled.values.to_list(), polled.offsets.tolist(), strict=True):
        with suppress(Fatal):
            found.append(records.decode(value, offset))
    return found
