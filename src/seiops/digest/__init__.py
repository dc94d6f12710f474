"""The EVM logical digest: the same state gives the same 32 bytes, whichever store holds it.

`model` and `keys` are the definition, `memiavl`, `flatkv` and `pebble` read the stores on disk, `reference` joins them
into the pure-Python engine that every other engine is tested against, `engine` is the interface engines share, `report`
prints what seidb prints and `seidb` runs and reads the real one. Formats: `docs/contracts/digest.md`.
"""
