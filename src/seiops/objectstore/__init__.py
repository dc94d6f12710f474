"""Object stores: streaming, sealed, whole-or-absent publication, and what a store's errors mean."""

from seiops.objectstore.emission import Published, gunzip, publish_gzip, read_gzip
from seiops.objectstore.errors import Location, StoreError, classify
from seiops.objectstore.store import ObjectInfo, Store, open_store

__all__ = [
    "Location",
    "ObjectInfo",
    "Published",
    "Store",
    "StoreError",
    "classify",
    "gunzip",
    "open_store",
    "publish_gzip",
    "read_gzip",
]
