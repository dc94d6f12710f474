"""`make demo`: the main job once, from an empty cluster to a running node and a sealed digest, each step checked."""
