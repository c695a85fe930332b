"""One file over HTTP: resumed where the last attempt was cut, if it is still the same file."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..errors import UserError
from .sidecar import write_json

if TYPE_CHECKING:
    from requests import Response

Progress = Callable[[int, "int | None"], None]
CHUNK = 1 << 16  # bytes; of a cut one nothing is kept
TIMEOUT = (10, 60)  # seconds to connect, and to wait for the next bytes


@dataclass(frozen=True)
class _Version:
    """What the server says that tells one content of an address from another."""

    url: str
    etag: str
    last_modified: str
    length: int | None

    @property
    def certain(self) -> bool:
        """Whether two equal ones mean the same bytes."""
        return self.length is not None and bool(self.etag or self.last_modified)

    @classmethod
    def of(cls, url: str, response: Response) -> _Version:
        headers = response.headers
        total = headers.get("Content-Range", "").rpartition("/")[2] or headers.get("Content-Length", "")
        length = int(total) if total.isdigit() else None
        return cls(url, headers.get("ETag", ""), headers.get("Last-Modified", ""), length)


def transfer(url: str, part: Path, progress: Progress | None = None) -> None:
    """Bring the bytes at ``url`` into the file ``part``, continuing it if an earlier call was cut.

    Args:
        url: of ``http`` or ``https``.
        part: the unfinished file; what it is a part of is kept beside it until :func:`discard`.
        progress: called with the bytes that are here and the total, None if the server does not say it.

    Raises:
        UserError: no connection, nothing there, a cut connection, no space.
    """
    begun = _begun(url, part)
    have = part.stat().st_size if begun else 0
    if begun and have == begun.length:
        return
    with _explained(url, part):
        response = _request(url, have, begun)
        if begun and not _continues(response, have, begun):
            if response.status_code != 200:
                response.close()
                response = _request(url)
            have = 0
        with response:
            _check_status(url, response)
            version = _Version.of(url, response)
            write_json(_state(part), asdict(version))
            _receive(response, part, have, version.length, progress)


def discard(part: Path) -> None:
    """Remove an unfinished or refused file and what is known of it."""
    part.unlink(missing_ok=True)
    _state(part).unlink(missing_ok=True)


def _state(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _begun(url: str, part: Path) -> _Version | None:
    """What ``part`` is the beginning of; None if it cannot be continued."""
    try:
        version = _Version(**json.loads(_state(part).read_text()))
        size = part.stat().st_size
    except (OSError, ValueError, TypeError):
        return None
    return version if version.url == url and version.certain and 0 < size <= version.length else None


def _request(url: str, start: int = 0, begun: _Version | None = None) -> Response:
    import requests  # only a download needs it

    headers = {"Accept-Encoding": "identity"}
    if begun:
        headers["Range"] = f"bytes={start}-"
        # A weak tag is not for the server to compare; the answer is compared here in any case.
        condition = begun.last_modified if begun.etag.startswith("W/") else begun.etag or begun.last_modified
        headers |= {"If-Range": condition} if condition else {}
    return requests.get(url, headers=headers, stream=True, timeout=TIMEOUT)


def _continues(response: Response, start: int, begun: _Version) -> bool:
    begins = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
    return response.status_code == 206 and begins and begun == _Version.of(begun.url, response)


def _check_status(url: str, response: Response) -> None:
    if response.status_code in (404, 410):
        raise UserError(
            f"there is nothing at {url} any more ({response.status_code}): the publisher has moved or withdrawn it;"
            " take the file from another place and give its path instead"
        )
    if not response.ok:
        raise UserError(f"the server answers {response.status_code} {response.reason} for {url}; try again later")


def _receive(response: Response, part: Path, have: int, total: int | None, progress: Progress | None) -> None:
    from requests import RequestException

    try:
        with part.open("ab" if have else "wb") as file:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                have += len(chunk)
                if progress:
                    progress(have, total)
    except RequestException as error:
        of = f" of {total}" if total else ""
        raise UserError(
            f"the connection was cut after {have}{of} bytes of {response.url}; run the same again to continue"
        ) from error


@contextmanager
def _explained(url: str, part: Path) -> Iterator[None]:
    """Errors of the network and of the disk as sentences."""
    from requests import RequestException, exceptions

    try:
        yield
    except (exceptions.ConnectionError, exceptions.Timeout) as error:
        raise UserError(
            f"{urlsplit(url).netloc} cannot be reached for {url}; check the network and its proxy, or bring the file"
            f" to '{part.with_suffix('')}' by another way"
        ) from error
    except RequestException as error:
        raise UserError(f"{url} cannot be downloaded: {error}") from error
    except OSError as error:
        raise disk_error(part.parent, error) from error


def disk_error(folder: Path, error: OSError) -> UserError:
    """The sentence for a folder that cannot take the file."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    what = f"the disk of '{folder}' is full" if full else f"'{folder}' cannot be written to ({error.strerror or error})"
    return UserError(f"{what}; free some space or choose another folder (--cache-dir, REGNET_BACKBONES_CACHE)")
