"""Messages between this process and a worker: small JSON over a socket, arrays through shared memory.

A worker decodes hostile bytes and is not trusted itself: nothing that it sends is unpickled, and the arrays
that it announces must lie within the shared memory and be plain numbers.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeAlias

import numpy as np

from data.readers.payload import (
    AnyArray,
    Clip,
    Events,
    Payload,
    Picture,
    Points,
    Text,
    ThermalPicture,
    Waveform,
)

Message: TypeAlias = dict[str, Any]
# An array: the clips of `read_clips`. A list: what a step made of a payload.
Result: TypeAlias = Payload | AnyArray | list[AnyArray]

MAX_MESSAGE = 2**24  # bytes: a text sample of a mebibyte, escaped, and some room
_PIECE = 2**30  # bytes that one system call moves; Linux stops at 2 GiB
_LENGTH = struct.Struct("<I")
_PAYLOADS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (Picture, Waveform, Points, ThermalPicture, Clip, Events, Text)
}


def send(connection: socket.socket, message: Message) -> None:
    """Send one message, preceded by its length."""
    body = json.dumps(message).encode("ascii")
    connection.sendall(_LENGTH.pack(len(body)) + body)


def receive(connection: socket.socket) -> Message | None:
    """The next message; None where the other side has closed. Raises ValueError for a malformed message."""
    head = _exactly(connection, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > MAX_MESSAGE:
        raise ValueError(f"a message of {length:,} bytes")
    body = _exactly(connection, length)
    if body is None:
        return None
    message = json.loads(body)
    if not isinstance(message, dict):
        raise ValueError("a message that is not an object")
    return message


def _exactly(connection: socket.socket, count: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < count:
        try:
            some = connection.recv(count - len(parts))
        except ConnectionResetError:  # it ended with a message of ours unread
            return None
        if not some:
            return None
        parts += some
    return bytes(parts)


def put(result: Result, memory: int, *, at: int = 0) -> tuple[Message, int]:
    """Write a result's arrays to the shared memory of that file descriptor, from offset `at` on.

    Returns the description that `take` needs, and the end offset.
    """
    end = at

    def lay(array: AnyArray) -> Message:
        nonlocal end
        # Fortran order is kept: it changes the order in which sums are added.
        turned = array.flags.f_contiguous and not array.flags.c_contiguous
        plain = np.ascontiguousarray(array.T if turned else array)
        start, end = end, end + plain.nbytes
        if plain.nbytes:
            bits = plain.data.cast("B")
            written = 0
            while written < len(bits):
                written += os.pwrite(memory, bits[written : written + _PIECE], start + written)
        return {"dtype": plain.dtype.str, "shape": plain.shape, "at": start, "turned": turned}

    if isinstance(result, np.ndarray):
        return {"array": lay(result)}, end
    if isinstance(result, list):
        return {"list": [lay(each) for each in result]}, end
    values = {field.name: getattr(result, field.name) for field in fields(result)}
    message = {
        "kind": type(result).__name__,
        "arrays": {name: lay(value) for name, value in values.items() if isinstance(value, np.ndarray)},
        "plain": {name: value for name, value in values.items() if not isinstance(value, np.ndarray)},
    }
    return message, end


def take(message: Mapping[str, Any], memory: int) -> Result:
    """Copy the result that `put` described out of shared memory. Raises ValueError where it does not fit."""
    size = os.fstat(memory).st_size
    if "array" in message:
        return _array(message["array"], memory, size)
    if "list" in message:
        return [_array(about, memory, size) for about in message["list"]]
    kind = _PAYLOADS[message["kind"]]
    arrays = {name: _array(about, memory, size) for name, about in message["arrays"].items()}
    result: Payload = kind(**arrays, **message["plain"])
    return result


def _array(about: Mapping[str, Any], memory: int, size: int) -> AnyArray:
    dtype, shape, at = np.dtype(str(about["dtype"])), [int(side) for side in about["shape"]], int(about["at"])
    count = dtype.itemsize
    for side in shape:
        count *= side
    if dtype.kind not in "buif" or min(shape, default=0) < 0 or at < 0 or at + count > size:
        raise ValueError(f"an array {dtype}{shape} at {at} of {size} bytes")
    array: AnyArray = np.empty(shape, dtype)
    if count:
        bits = array.data.cast("B")
        filled = 0
        while filled < count:
            read = os.preadv(memory, [bits[filled : filled + _PIECE]], at + filled)
            if not read:
                raise ValueError("truncated shared memory")
            filled += read
    return array.T if about["turned"] else array
