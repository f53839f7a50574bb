"""Patch files that are malformed, and bytes that a patch is not pinned to."""

from pathlib import Path

import pytest
from usr1 import patches
from usr1.patches import PatchError

NEWEST = patches.catalogue("uvicorn")[-1]
TEXT = NEWEST.path.read_text()
FIELDS = ("Applies-To", "Revision", "Pristine-SHA256", "Patched-SHA256")
DIFF = "--- a/one.py\n+++ b/one.py\n@@ -1 +1 @@\n-old\n+new\n"


@pytest.mark.parametrize(
    "text, said",
    [
        ("Description: nothing\n", "no unified diff"),
        *((TEXT.replace(f"{field}:", "X-Other:"), f"{field}.* missing") for field in FIELDS),
        (TEXT + DIFF, "2 files, but 1 and 1 hashes"),
    ],
)
def test_malformed(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "one.patch").write_text(text)
    with pytest.raises(PatchError, match=said):
        patches.read(tmp_path / "one.patch")


def test_other_bytes() -> None:
    [part] = NEWEST.parts
    with pytest.raises(PatchError, match=f"expected {part.pristine_sha256}"):
        part.apply(b"other\n")


def test_a_diff_that_gives_something_else() -> None:
    before = b"old\n"
    [part] = NEWEST.parts
    part = part._replace(text=DIFF, pristine_sha256=patches.sha256(before))
    with pytest.raises(PatchError, match="the result has SHA-256"):
        part.apply(before)
