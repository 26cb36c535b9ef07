"""SHA-256 of short texts, without OpenSSL, whose loading takes a third of the time of Python's start.

Files are hashed by `hashlib`, whose way pays off where there is much to hash.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import sha256
else:
    try:
        from _sha2 import sha256
    except ImportError:
        try:
            from _sha256 import sha256  # Python before 3.12
        except ImportError:  # whoever built this Python left it to OpenSSL
            from hashlib import sha256


def hexdigest(data: bytes) -> str:
    """The digest of `data`, 64 hex digits."""
    return sha256(data).hexdigest()
