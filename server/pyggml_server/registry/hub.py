"""Split models on Hugging Face: its registry refuses them, so their files are found by its own protocol."""

import json
import re
from dataclasses import dataclass
from typing import Any, Final

import httpx2

from pyggml_server.errors import TransferError
from pyggml_server.registry.client import Repository, check, read_limited, retry

__all__ = ["HubFile", "find_shards"]

_SHARD: Final = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf\Z")
_MAX_PAGES: Final = 20
_MAX_PAGE: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository: its path there, its digest (``sha256:<hex>``) and its size in bytes."""

    path: str
    digest: str
    size: int

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


async def find_shards(repository: Repository) -> list[HubFile]:
    """The files of a split model whose name holds the tag of the repository's name, in order.

    Raises:
        TransferError: there are none, or several models fit.
    """
    tag = repository.name.tag.lower()
    models = dict[str, list[tuple[int, int, HubFile]]]()
    for file in await _list_files(repository):
        match = _SHARD.match(file.path)
        if match is not None and (
            tag == "latest" or tag in re.split(r"[-._/]", match["stem"].lower()) or f"-{tag}" in match["stem"].lower()
        ):
            models.setdefault(match["stem"], []).append((int(match["number"]), int(match["count"]), file))
    if len(models) != 1:
        found = ", ".join(sorted(models)) or "none"
        raise TransferError(
            f"{repository.name.display}: one split model is needed, found: {found}; name its type as tag"
        )
    shards = sorted(next(iter(models.values())), key=lambda shard: shard[:2])
    count = shards[0][1]
    if [(number, total) for number, total, _ in shards] != [(i, count) for i in range(1, count + 1)]:
        raise TransferError(f"{repository.name.display}: shards are missing: there are {len(shards)} of {count}")
    return [file for _, _, file in shards]


async def _list_files(repository: Repository) -> list[HubFile]:
    name = repository.name
    base = repository.origin.copy_with(path=f"/api/models/{name.namespace}/{name.model}/tree/main")
    url: httpx2.URL | None = base.copy_merge_params({"recursive": "true"})
    files = list[HubFile]()
    for _ in range(_MAX_PAGES):
        if url is None:
            return files
        rows, link = await _read_page(repository, url)
        files += [file for row in rows if (file := _file(row)) is not None]
        found = re.search(r'<([^>]+)>;\s*rel="next"', link)
        url = url.join(found[1]) if found else None
    raise TransferError(f"{name.display}: its list of files does not end")


async def _read_page(repository: Repository, url: httpx2.URL) -> tuple[list[Any], str]:
    async def get() -> tuple[list[Any], str]:
        response = await repository.follow("GET", url)
        try:
            await check(response)
            rows = json.loads(await read_limited(response, _MAX_PAGE))
        except ValueError as error:
            raise TransferError(f"{url.host}: its list of files cannot be read ({error})") from error
        finally:
            await response.aclose()
        return (rows if isinstance(rows, list) else []), response.headers.get("Link", "")

    page: tuple[list[Any], str] = await retry(repository.settings, get)
    return page


def _file(row: Any) -> HubFile | None:
    """A line of the list, where it is a large file: only of those the hub tells the SHA-256."""
    try:
        digest, size, path = row["lfs"]["oid"], row["lfs"]["size"], row["path"]
    except (TypeError, KeyError):
        return None
    digest = str(digest).removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{64}", digest) or not isinstance(size, int) or size < 0:
        return None
    return HubFile(str(path), f"sha256:{digest}", size)
