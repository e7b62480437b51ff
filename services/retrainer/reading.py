"""Records of topics that anybody with a client can write to: not all that stands there is one."""

from contextlib import suppress

from shared.control.records import Record, Records
from shared.errors import Fatal
from shared.runtime.polled import Polled


def readable(records: Records, polled: Polled) -> list[Record]:
    """The records that are of the topic's schema, in order.

    What is not (a tombstone, garbage, another schema) is passed over: of commands the controller reads the same
    topic and puts it among the dead letters, and a figure tells people something, no service.
    """
    found = []
    for value, offset in zip(polled.values.to_list(), polled.offsets.tolist(), strict=True):
        with suppress(Fatal):
            found.append(records.decode(value, offset))
    return found
