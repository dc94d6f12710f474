"""A read-only reader of Pebble databases, as far as FlatKV's need it (docs/contracts/digest.md 5).

`directory` finds the live files, `records` undoes the framing that MANIFEST and log share, `manifest` and `batch` give
their content a meaning, `block` and `table` read tables, `database` merges it all into the newest visible rows. Nothing
is ever repaired, created or deleted; what is not implemented is refused with the file named.
"""
