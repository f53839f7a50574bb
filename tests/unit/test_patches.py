"""Patch files that are malformed, and bytes that a patch is not pinned to."""

from pathlib import Path

import pytest
from usr1 import patches
from usr1.patches import PatchError


def newest() -> patches.Patch:
    return patches.catalogue("uvicorn")[-1]


def test_no_diff(tmp_path: Path) -> None:
    (tmp_path / "empty.patch").write_text("Description: nothing\n")
    with pytest.raises(PatchError, match="no unified diff"):
        patches.read(tmp_path / "empty.patch")


@pytest.mark.parametrize("field", ["Applies-To", "Revision", "Pristine-SHA256", "Patched-SHA256"])
def test_missing_field(field: str, tmp_path: Path) -> None:
    (tmp_path / "one.patch").write_text(newest().path.read_text().replace(f"{field}:", "X-Other:"))
    with pytest.raises(PatchError, match=field):
        patches.read(tmp_path / "one.patch")


def test_a_file_without_hashes(tmp_path: Path) -> None:
    more = "--- a/two.py\n+++ b/two.py\n@@ -1 +1 @@\n-old\n+new\n"
    (tmp_path / "one.patch").write_text(newest().path.read_text() + more)
    with pytest.raises(PatchError, match="2 files, but 1 and 1 hashes"):
        patches.read(tmp_path / "one.patch")


def test_other_bytes() -> None:
    [part] = newest().parts
    with pytest.raises(PatchError, match=f"expected {part.pristine_sha256}"):
        part.apply(b"other\n")


def test_a_diff_that_gives_something_else() -> None:
    before = b"old\n"
    diff = "--- a/one.py\n+++ b/one.py\n@@ -1 +1 @@\n-old\n+new\n"
    [part] = newest().parts
    part = part._replace(text=diff, pristine_sha256=patches.sha256(before))
    with pytest.raises(PatchError, match="the result has SHA-256"):
        part.apply(before)
