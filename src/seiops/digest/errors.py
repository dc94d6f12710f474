"""Why a digest could not be taken, in the words users already search for.

Engines raise one type, so a command line can print the text as seidb does and a task can fail with it.
"""


class DigestError(Exception):
    """A store, a row or an argument that cannot be digested.

    The text is the whole message for the user: seidb's own where it has one (docs/contracts/digest.md 1.7, 1.8, 1.13,
    3.7, 4.6), otherwise the file and what was expected there.
    """


class UnsupportedFormatError(DigestError):
    """The bytes are of a format this engine does not read: refused with the file named, never guessed at."""


class ReferenceOnlyError(UnsupportedFormatError):
    """A store this engine declines to open although the reference engine can read it; raised before anything is scanned."""
