"""memiavl on disk: snapshots of AVL trees as flat files, and the changelog between them (docs/contracts/digest.md 3)."""
