"""Places to publish to: an S3 bucket (`s3://BUCKET/PREFIX`), or a folder that machines share.

A place holds objects by name. An object is there as a whole or not at all. `put_new` makes one only if there
is none of its name yet, and `replace` replaces one only if it is still as it was read: of two writers, one
succeeds.

S3 is read and written by pyarrow. That has no conditional request, so these are boto3's (the extra `s3`);
reading needs no extra. Credentials and the region come from the environment or the AWS configuration alone,
the address of another S3 server from AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from data.errors import InputError, MissingDependencyError, first_line
from data.files import atomic_path, write_new

PIECE = 2**23  # bytes that are read and sent at a time
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_S3 = "s3://"
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
# Parts of the messages of pyarrow and boto3, and what to tell.
_REASONS = (
    (r"NO_SUCH_BUCKET|NoSuchBucket", "there is no such bucket; create it, or correct the name"),
    (r"EXPIRED_?TOKEN", f"the credentials have expired; renew them ({_KEYS})"),
    (
        r"INVALID_?ACCESS_?KEY_?ID|SIGNATURE_?DOES_?NOT_?MATCH|UNRECOGNIZED_?CLIENT|INVALID_?CLIENT_?TOKEN"
        r"|MISSING_?AUTHENTICATION|Unable to locate credentials|NoCredentials",
        f"the credentials are missing or wrong; set {_KEYS}",
    ),
    (
        r"ACCESS_?DENIED|Forbidden|status 403|\(403\)",
        f"access is denied; check the credentials ({_KEYS}) and the rights of this user to the bucket",
    ),
    (
        r"NETWORK_CONNECTION|Could not (connect|resolve)|EndpointConnectionError|ConnectTimeout|timed out",
        "the server cannot be reached; check the network, the region (AWS_REGION) and AWS_ENDPOINT_URL",
    ),
    (r"PERMANENT_?REDIRECT|status 301|Moved Permanently", "the bucket is in another region; set AWS_REGION"),
)


class Place(Protocol):
    """Objects by name; names are relative, with `/`."""

    name: str  # for messages

    def listed(self, below: str) -> dict[str, int]:
        """The bytes of each object whose name begins with `below`, a folder."""

    def open(self, name: str) -> Any:
        """An object as a seekable file of bytes. Raises FileNotFoundError."""

    def pieces(self, name: str) -> Iterator[bytes]:
        """The bytes of an object. Raises FileNotFoundError."""

    def put(self, name: str, pieces: Iterable[bytes]) -> None:
        """Make or replace an object. If the pieces end with an error, there is none."""

    def put_new(self, name: str, content: bytes) -> bool:
        """Make an object; False if there is one of this name already."""

    def tagged(self, name: str) -> tuple[bytes, str] | None:
        """The bytes of an object, and a tag of this content; None if there is no such object."""

    def replace(self, name: str, content: bytes, tag: str) -> str | None:
        """Replace an object whose content still has this tag; the new tag, or None if it has not."""


def open_place(given: str) -> Place:
    """The place at `s3://BUCKET/PREFIX` or a path; a missing folder is made by the first `put`.

    Raises InputError for any other address.
    """
    if given.startswith(_S3):
        bucket, _, prefix = given.removeprefix(_S3).partition("/")
        if not bucket or not prefix.strip("/"):
            raise InputError(f"{given}: give a bucket and a name in it, such as s3://my-bucket/birds")
        return S3Place(bucket, prefix.strip("/"))
    if "://" in given:
        raise InputError(f"{given}: give s3://BUCKET/NAME, or the path of a folder")
    return FolderPlace(Path(given))


class FolderPlace:
    """A folder, on a disk that several machines may share."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._folder = folder

    def listed(self, below: str) -> dict[str, int]:
        """As `Place`."""
        return {
            path.relative_to(self._folder).as_posix(): path.stat().st_size
            for path in (self._folder / below).rglob("*")
            if path.is_file() and not path.name.startswith(".")
        }

    def open(self, name: str) -> Any:
        """As `Place`. DuckDB closes no file, so it is one that closes itself without a warning."""
        return pa.OSFile(str(self._folder / name))

    def pieces(self, name: str) -> Iterator[bytes]:
        """As `Place`."""
        with self.open(name) as file:
            while piece := file.read(PIECE):
                yield piece

    def put(self, name: str, pieces: Iterable[bytes]) -> None:
        """As `Place`."""
        with atomic_path(self._folder / name) as temporary, temporary.open("wb") as file:
            file.writelines(pieces)

    def put_new(self, name: str, content: bytes) -> bool:
        """As `Place`."""
        return write_new(self._folder / name, content)

    def tagged(self, name: str) -> tuple[bytes, str] | None:
        """As `Place`."""
        try:
            content = (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None
        return content, hashlib.sha256(content).hexdigest()

    def replace(self, name: str, content: bytes, tag: str) -> str | None:
        """As `Place`. Compared and replaced under a lock, which must reach all machines that write here."""
        target = self._folder / name
        with target.with_name(f".{target.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = self.tagged(name)
            if found is None or found[1] != tag:
                return None
            with atomic_path(target) as temporary:
                temporary.write_bytes(content)
        return hashlib.sha256(content).hexdigest()


class S3Place:
    """A prefix of a bucket of Amazon S3, or of another server with this protocol."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self.name = f"{_S3}{bucket}/{prefix}"
        self._bucket, self._prefix = bucket, prefix
        options: dict[str, Any] = {"allow_delayed_open": True}  # a small object is one request
        if region := _first_of(_REGIONS):
            options["region"] = region
        if endpoint := _first_of(_ENDPOINTS):
            parts = urlsplit(endpoint)
            if parts.scheme not in {"http", "https"} or not parts.netloc:
                raise InputError(f"{_ENDPOINTS[-1]}={endpoint!r}: give http://HOST:PORT or https://HOST")
            options |= {"scheme": parts.scheme, "endpoint_override": parts.netloc}
        with self._explained():
            self._files = fs.S3FileSystem(**options)
        self._boto: Any = None
        self._making = threading.Lock()

    def listed(self, below: str) -> dict[str, int]:
        """As `Place`."""
        base = f"{self._bucket}/{self._prefix}/"
        selector = fs.FileSelector(f"{base}{below}", recursive=True)
        with self._explained():
            try:
                found = self._files.get_file_info(selector)
            except FileNotFoundError:
                return {}
        return {each.path.removeprefix(base): each.size for each in found if each.type == fs.FileType.File}

    def open(self, name: str) -> Any:
        """As `Place`."""
        with self._explained():
            return self._files.open_input_file(self._path(name))

    def pieces(self, name: str) -> Iterator[bytes]:
        """As `Place`."""
        with self._explained(), self.open(name) as file:
            while piece := file.read(PIECE):
                yield piece

    def put(self, name: str, pieces: Iterable[bytes]) -> None:
        """As `Place`."""
        with self._explained():
            stream = self._files.open_output_stream(self._path(name))
            try:
                for piece in pieces:
                    stream.write(piece)
            except BaseException:
                # Closing is the only way to end a stream, and makes an object of what it was given.
                with suppress(OSError):
                    stream.close()
                    self._files.delete_file(self._path(name))
                raise
            stream.close()

    def put_new(self, name: str, content: bytes) -> bool:
        """As `Place`. Raises MissingDependencyError without the extra `s3`."""
        return self._put_if(name, content, IfNoneMatch="*") is not None

    def tagged(self, name: str) -> tuple[bytes, str] | None:
        """As `Place`. Raises MissingDependencyError without the extra `s3`."""
        found = self._asked("get_object", {"NoSuchKey", "404"}, Key=f"{self._prefix}/{name}")
        return None if found is None else (found["Body"], str(found["ETag"]))

    def replace(self, name: str, content: bytes, tag: str) -> str | None:
        """As `Place`. Raises MissingDependencyError without the extra `s3`."""
        return self._put_if(name, content, IfMatch=tag)

    def _put_if(self, name: str, content: bytes, **condition: str) -> str | None:
        # 409: another conditional request for this name is under way, so one of the two will be there.
        # 404: what is to be replaced is not there.
        refusals = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "412", "409", "404"}
        key = f"{self._prefix}/{name}"
        found = self._asked("put_object", refusals, Key=key, Body=content, **condition)
        return None if found is None else str(found["ETag"])

    def _asked(self, operation: str, refusals: set[str], **parameters: Any) -> Any:
        """The answer of boto3 to a request to this bucket; None where it is one of the refusals."""
        try:
            import boto3
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError as error:
            raise MissingDependencyError(
                "publishing to S3 needs conditional requests: pip install '.[s3]'"
            ) from error
        try:
            with self._making:  # making a client takes boto3 a quarter of a second, and one thread at a time
                if self._boto is None:
                    self._boto = boto3.client(
                        "s3", endpoint_url=_first_of(_ENDPOINTS), region_name=_first_of(_REGIONS)
                    )
            found = getattr(self._boto, operation)(Bucket=self._bucket, **parameters)
            return found | {"Body": found["Body"].read()} if "Body" in found else found
        except ClientError as error:
            if str(error.response.get("Error", {}).get("Code", "")) in refusals:
                return None
            raise self._error(error) from error
        except BotoCoreError as error:
            raise self._error(error) from error

    def _path(self, name: str) -> str:
        return f"{self._bucket}/{self._prefix}/{name}"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            if "AWS Error" not in str(error):
                raise
            raise self._error(error) from error

    def _error(self, error: Exception) -> InputError:
        text = str(error)
        for pattern, advice in _REASONS:
            if re.search(pattern, text, re.IGNORECASE):
                return InputError(f"{self.name}: {advice}")
        return InputError(f"{self.name}: {first_line(error)}")


def _first_of(variables: Iterable[str]) -> str | None:
    """The value of the first variable that has one. pyarrow and boto3 look at different ones."""
    return next((os.environ[name] for name in variables if os.environ.get(name)), None)
