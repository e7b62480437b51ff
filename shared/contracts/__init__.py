"""The contracts: declarations, Avro schemas, what follows from them, and their lint."""
