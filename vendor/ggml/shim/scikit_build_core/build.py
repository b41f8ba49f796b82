"""Stands in for the pinned sdist's build back end while pip downloads it.

``pip download`` asks every source distribution for its metadata, and for that would install the sdist's own build
requirements from the index and run its code. We only want the verified file, and the file already holds its metadata.
See ``download`` in ``../../fetch.py``.
"""

import shutil
from email.parser import HeaderParser
from pathlib import Path
from typing import Any


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: dict[str, Any] | None = None) -> str:
    """PEP 517: write the metadata folder and return its name."""
    headers = HeaderParser().parsestr(Path("PKG-INFO").read_text(encoding="utf-8"))
    folder = Path(metadata_directory) / f"{headers['Name'].replace('-', '_')}-{headers['Version']}.dist-info"
    folder.mkdir()
    shutil.copyfile("PKG-INFO", folder / "METADATA")
    return folder.name


def build_wheel(*_: object, **__: object) -> str:
    """PEP 517 wants it to exist; nobody calls it."""
    raise NotImplementedError("the pinned sdist is only downloaded, never built")
