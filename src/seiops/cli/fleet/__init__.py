"""What a person on call wants to know of SeiNodes, computed from stored objects: rows, concerns, stories."""
