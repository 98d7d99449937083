"""Names that nothing may be read from or written to."""

import os
from pathlib import Path


def bad_place(kind: str, folder: Path) -> Path:
    """A name that nothing may be written to, beside the input folder/in.pt."""
    if kind == "the input":
        return folder / "in.pt"
    if kind == "the input, spelled otherwise":
        return folder / ".." / folder.name / "." / "in.pt"
    path = folder / "out.pt"
    if kind == "a hard link":
        os.link(folder / "in.pt", path)
    elif kind == "a symbolic link":
        path.symlink_to("in.pt")
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a link to a device":
        path.symlink_to(os.devnull)
    elif kind == "a folder":
        path.mkdir()
    else:
        return {
            "a device": Path(os.devnull),
            "no folder": folder / "none" / "out.pt",
            "in a file": folder / "in.pt" / "out.pt",
        }[kind]
    return path
