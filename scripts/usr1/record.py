"""
RECORD, the list of a distribution's installed files with their hashes and sizes.

Specified by PEP 376 and PEP 627; the hash is urlsafe base64 without padding. One line is
rewritten; every other byte stays, whoever wrote it and with whichever line endings.
"""

import base64
import hashlib
import re
from typing import NamedTuple, Optional


class Line(NamedTuple):
    before: bytes
    digest: str  # Like "sha256=…"; empty in a RECORD without hashes
    after: bytes

    def rewritten(self, content: bytes) -> bytes:
        """RECORD with this line describing that content, if it described any."""
        described = f"{digest(hashlib.sha256(content).hexdigest())},{len(content)}" if self.digest else ","
        return self.before + described.encode() + self.after


def digest(sha256: str) -> str:
    """A SHA-256 as RECORD writes it, from hexadecimal digits."""
    return "sha256=" + base64.urlsafe_b64encode(bytes.fromhex(sha256)).rstrip(b"=").decode()


def line(record: bytes, path: str) -> Optional[Line]:
    """The one line of a file, or None if there is none, or several, or it makes no sense."""
    name = re.escape(path).encode()
    matches = list(re.finditer(rb'^("?)%s\1,([^,\r\n]*),(\d*)(?=\r?$)' % name, record, re.MULTILINE))
    if len(matches) != 1 or bool(matches[0][2]) != bool(matches[0][3]):
        return None
    [match] = matches
    return Line(record[: match.start(2)], match[2].decode(errors="replace"), record[match.end() :])
