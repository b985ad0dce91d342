"""Point to point between processes: frames over TCP, in order, each sent once.

A frame is two lengths, a header in MessagePack and a payload of bytes; nothing that is received is
executed. A `Link` can play a slower network: it sends one message at a time at a given rate and
holds each back for a latency, as the simulator's links do.
"""

import contextlib
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable
from hmac import compare_digest
from queue import Empty, SimpleQueue
from typing import Any

import msgspec

from helix.run.messages import Hello, Message, Pass
from helix.run.supervise import watched

log = logging.getLogger("helix")

LENGTHS = struct.Struct("<II")
LARGEST = 1 << 30  # bytes; a frame that says more is no frame of ours
LARGEST_HELLO = 1 << 12
CONNECT_S = 10.0
PAUSE_S = 0.1  # before accepting again where that failed

Buffer = bytes | bytearray | memoryview
Received = Callable[[int, Message, bytearray], None]
"""Sender, message, payload; called from the connection's thread."""
Unsent = Callable[[Message, Exception], None]
"""What could not be sent and why: an `OSError` if the other end cannot be reached."""


def framed(message: Message, payload: Buffer = b"") -> bytes:
    """Return a message as it goes over the wire."""
    header = msgspec.msgpack.encode(message)
    return b"".join((LENGTHS.pack(len(header), len(payload)), header, payload))


class Listener:
    """Accepts connections, checks who calls, and hands on what arrives."""

    def __init__(
        self, host: str, secret: str, received: Received, lost: Callable[[int], None]
    ) -> None:
        """Listen on a free port of the host; `lost` is told of senders whose connection ended."""
        self._secret, self._received, self._lost = secret, received, lost
        self._socket = socket.create_server((host, 0))
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        self._open, self._closed = set[socket.socket](), False
        threading.Thread(target=self._accept, daemon=True, name="accept").start()

    def close(self) -> None:
        """Accept and receive no more."""
        self._closed = True
        for one in (self._socket, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._socket.accept()
                self._welcome(connection)
            except Exception as error:  # too many open files or threads: others hang up some time
                if not self._closed:
                    log.warning("a connection was not accepted: %s", error)
                    time.sleep(PAUSE_S)

    def _welcome(self, connection: socket.socket) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _keep_alive(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
        except Exception:
            connection.close()
            raise

    def _serve(self, connection: socket.socket) -> None:
        self._open.add(connection)
        sender = None
        try:
            with connection:
                connection.settimeout(CONNECT_S)
                hello, _ = _receive(connection, LARGEST_HELLO)
                if isinstance(hello, Hello) and compare_digest(hello.secret, self._secret):
                    connection.settimeout(None)
                    sender = hello.sender
                    while True:
                        self._received(sender, *_receive(connection))
        except (OSError, EOFError):
            pass  # hung up, or hung up on
        except Exception as error:
            log.warning("hung up on machine %s: %s", sender, error)
        finally:
            self._open.discard(connection)
        if sender is not None:
            self._lost(sender)


def _keep_alive(connection: socket.socket) -> None:
    """Let the connection end when the other machine is gone without a word."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _receive(connection: socket.socket, most: int = LARGEST) -> tuple[Message, bytearray]:
    header_bytes, payload_bytes = LENGTHS.unpack(_exactly(connection, LENGTHS.size))
    if header_bytes + payload_bytes > most:
        raise ValueError("not a frame")
    header = _exactly(connection, header_bytes)
    payload = _exactly(connection, payload_bytes)
    return msgspec.msgpack.decode(header, type=Message), payload


def _exactly(connection: socket.socket, size: int) -> bytearray:
    buffer = bytearray(size)
    view, got = memoryview(buffer), 0
    while got < size:
        more = connection.recv_into(view[got:])
        if not more:
            raise EOFError
        got += more
    return buffer


class Link:
    """One way to another process; what is sent is queued and never blocks the sender."""

    def __init__(
        self, sender: int, secret: str, address: tuple[str, int], failed: Unsent,
        broke: Callable[[Exception], None], bytes_per_s: float = 0.0, latency_s: float = 0.0,
    ) -> None:  # fmt: skip
        """Connect in the background; 0 plays nothing.

        `failed` gets what could not be sent. `broke` is told once, before that, when the link can
        send nothing any more: the other end is gone, or one of the link's threads is.
        """
        self.address, self.bytes_per_s, self.latency_s = address, bytes_per_s, latency_s
        self._hello, self._failed, self._broke = Hello(sender, secret), failed, broke
        self._socket: socket.socket | None = None
        self._breaking = threading.Lock()
        self.broken: Exception | None = None
        self._waiting = SimpleQueue[tuple[Message, Buffer] | None]()
        self._flying = SimpleQueue[tuple[Message, float, bytes] | None]()
        for work in (self._transmit, self._deliver):
            watched("link", work, self._break)

    def send(self, message: Message, payload: Buffer = b"") -> None:
        """Send after all that is sent already."""
        self._waiting.put((message, payload))
        self._give_up_if_broken()

    def close(self) -> None:
        """Send what is queued, then hang up."""
        self._waiting.put(None)

    def cut(self) -> None:
        """Hang up at once and tell nobody, as a process that ends does."""
        self._broke = lambda _: None
        self._failed = lambda _, __: None
        if self._socket is not None:
            self._socket.close()
        self._break(ConnectionError("cut"))

    def _transmit(self) -> None:
        """Let messages take their time on the link, one after the other."""
        free_at = 0.0
        while (one := self._waiting.get()) is not None:
            message, payload = one
            try:
                frame = framed(message, payload)
            except Exception as error:  # this message is at fault, not the link
                log.exception("a message cannot be put into a frame")
                self._failed(message, error)
                continue
            if self.bytes_per_s and isinstance(message, Pass):
                free_at = max(free_at, time.monotonic()) + len(frame) / self.bytes_per_s
                _sleep_until(free_at)
            self._flying.put((message, time.monotonic() + self.latency_s, frame))
            self._give_up_if_broken()
        self._flying.put(None)

    def _deliver(self) -> None:
        """Hand messages over when their latency has passed."""
        try:
            self._connected()  # at once, so that the other end learns of it if this process ends
            while self.broken is None and (one := self._flying.get()) is not None:
                message, due, frame = one
                _sleep_until(due)
                try:
                    self._connected().sendall(frame)
                except OSError as error:
                    self._break(error)
                    self._failed(message, error)
        except OSError as error:  # it could not connect
            self._break(error)
        finally:
            if self._socket is not None:
                self._socket.close()

    def _break(self, error: Exception) -> None:
        with self._breaking:
            first, self.broken = self.broken is None, self.broken or error
        if first:
            self._broke(error)
        self._give_up_if_broken()

    def _give_up_if_broken(self) -> None:
        """Return what is queued as not sent, and let both threads end."""
        if self.broken is None:
            return
        queues: tuple[SimpleQueue[Any], ...] = (self._flying, self._waiting)
        for queue in queues:
            with contextlib.suppress(Empty):
                while True:
                    if (one := queue.get_nowait()) is not None:
                        self._failed(one[0], ConnectionError(str(self.broken)))
            queue.put(None)

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.create_connection(self.address, CONNECT_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.settimeout(None)
            self._socket.sendall(framed(self._hello))
        return self._socket


def _sleep_until(due: float) -> None:
    left = due - time.monotonic()
    if left > 0:
        time.sleep(left)
