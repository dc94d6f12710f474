"""Why an object cannot be generated; the caller reports it on the node."""


class RenderError(Exception):
    """The node and the configuration give no safe object. The message is the wire text of
    docs/contracts/controller-behaviour.md 5.6 and 5.10, without the caller's prefix."""
