"""Reading what was written with another version of a schema."""

from shared.codec.program import Program, make_program
from shared.codec.schema import Schema, parse_schema


def resolve_program(writer: Schema, reader: Schema) -> Program:
    """A program that reads data of `writer` into the columns of `reader`: defaults filled, numbers widened.

    SchemaRefused lists every field for which the two do not go together. What depends on the datum, such as a
    null where the reader takes none or a symbol that it does not know, is that row's status instead.

    >>> old = {"type": "record", "name": "R", "fields": [{"name": "x", "type": "int"}]}
    >>> more = {"name": "y", "type": ["null", "string"], "default": None}
    >>> new = {"type": "record", "name": "R", "fields": [{"name": "x", "type": "double"}, more]}
    >>> from shared.codec.batch import Strings
    >>> batch = resolve_program(old, new).decode(Strings.of([bytes([6])])).batch
    >>> batch["x"].array.tolist(), batch["y"].mask().tolist()
    ([3.0], [False])
    """
    return make_program(parse_schema(writer), parse_schema(reader))
