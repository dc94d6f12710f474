"""What seiops knows about seid: its configuration, its RPC and its process."""
