"""The instruction set of the codec's kernels, and what can be wrong with a row.

A program is a table of int64 rows `(code, slot, a, b)`. A change here changes compiled kernels: numba's cache
looks at a kernel's own file only, so touch `decode.py` and `encode.py` too.
"""

STATUS_REASONS = (
    "ok",
    "avro.eof",  # the datum ends before its schema does
    "avro.varint",  # a number of more than 10 bytes or 64 bits
    "avro.trailing",  # bytes behind the datum
    "avro.length",  # a negative or impossible length, or a block that is not as long as it says
    "avro.range",  # an int beyond 32 bits
    "avro.utf8",
    "avro.enum",  # no such symbol, for the writer or for the reader
    "avro.union",  # no such branch, for the writer or for the reader
    "avro.boolean",  # neither 0 nor 1
    "avro.null",  # encoding only: null where the schema wants a value
    "avro.fixed",  # encoding only: a fixed of another size
    "avro.view",  # a row that points outside its buffer: the caller is wrong, not the data
)
EOF, VARINT, TRAILING, LENGTH, RANGE, UTF8, ENUM, UNION, BOOLEAN, NULL, SIZE, VIEW = range(1, 13)

END = 0  # the datum is over
BOOL = 1  # slot: flag row
INT = 2  # slot: number row
LONG = 3
FLOAT = 4
DOUBLE = 5
STRING = 6  # slot: text row
BYTES = 7
FIXED = 8  # a: bytes
SYMBOL = 9  # a: count of symbols, b: where the table of the reader's symbols begins, or -1
OPTIONAL = 10  # slot: flag row, a: which branch is null, b: where to go on when null
BRANCH = 11  # a: where the table of branch targets begins, b: their count
JUMP = 12  # b: where to go on
BLOCKS = 13  # a: nesting depth; an array or map begins
NEXT = 14  # a: nesting depth, b: where to go on when no item is left
OPEN = 15  # slot: text row; a subfield begins that is kept as its bytes
CLOSE = 16
SET = 17  # slot: flag row; a nullable column has a value
FAIL = 18  # a: status
NUMBER_AS_DOUBLE = 19  # slot: number row, a: 1 when the writer's is an int, b: 1 when the reader's is a float
RAW = 20  # encoding only, slot: text row; bytes as they are

# No reader that is in use takes longer texts or more items (Java's int).
MOST_LENGTH = 2**31 - 1
