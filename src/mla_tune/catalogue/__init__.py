"""Tables as a collection: where they lie, which a machine uses, and backends beside each other."""
