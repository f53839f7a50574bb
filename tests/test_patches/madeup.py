"""Releases that upstream never made, as wheels in a folder that pip and uv look into."""

import zipfile
from pathlib import Path
from typing import Callable

from usr1 import releases

Change = Callable[[str, str], str]


def make(folder: Path, like: str, release: str, change: Change) -> Path:
    """A wheel of uvicorn with the files of a published one, each as change(name, text) has it; "" leaves it out."""
    published = releases.unpacked("uvicorn", like)
    old, new = f"uvicorn-{like}.dist-info", f"uvicorn-{release}.dist-info"
    wheel = folder / f"uvicorn-{release}-py3-none-any.whl"
    names = []
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in sorted(published.rglob("*")):
            name = file.relative_to(published).as_posix()
            if file.suffix == ".pyc" or not file.is_file() or not name.startswith(("uvicorn/", f"{old}/")):
                continue
            text = change(name, file.read_text().replace(f"Version: {like}\n", f"Version: {release}\n"))
            if text and not name.endswith(("/RECORD", "/INSTALLER", "/REQUESTED")):
                names.append(name.replace(old, new))
                archive.writestr(names[-1], text)
        archive.writestr(f"{new}/RECORD", "".join(f"{name},,\n" for name in [*names, f"{new}/RECORD"]))
    return wheel
