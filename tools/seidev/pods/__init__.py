"""The kubelet's stand-in: runs the sidecar of each Pod as a local process and pretends the rest."""
