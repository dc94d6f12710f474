"""seiops operates Sei nodes on Kubernetes and proves that a storage migration changed nothing."""
