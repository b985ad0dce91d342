"""What every request passes: its id, its body as bytes, and one form for whatever goes wrong."""

import asyncio
import logging
import secrets
from collections.abc import Callable
from hmac import compare_digest
from typing import Any

import msgspec
from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import HttpProcessingError

from helix.run.refusals import BadRequest, refusal
from helix.run.request import NotNow

log = logging.getLogger("helix")

MOST_BODY = 4 << 20  # bytes
OPEN = {"/health", "/metrics", "/version", "/openapi.json"}  # without a key
BODY_S = 60.0  # a body that takes longer is refused
UNREADABLE = (
    ClientPayloadError, web.RequestPayloadError, web.PayloadAccessError, HttpProcessingError
)  # fmt: skip
ID = web.RequestKey("id", str)


def json_of(value: object, status: int = 200) -> web.Response:
    """Return a response with this value as JSON."""
    body = msgspec.json.encode(value)
    return web.Response(body=body, status=status, content_type="application/json")


def event_of(value: object) -> bytes:
    """Return a value as a server-sent event."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


async def body_of(request: web.Request) -> bytes:
    """Return the body as it was sent, or raise `BadRequest`."""
    coding = request.headers.get("Content-Encoding", "identity")
    if coding.lower() != "identity":
        raise BadRequest(f"Content-Encoding {coding[:80]!r} is not supported")
    try:
        async with asyncio.timeout(BODY_S):
            return await request.read()
    except TimeoutError:
        raise BadRequest(f"the body did not arrive within {BODY_S:g} s", 408) from None
    except web.HTTPRequestEntityTooLarge:
        raise BadRequest(f"the body is larger than {MOST_BODY} bytes", 413) from None
    except UNREADABLE as error:
        raise BadRequest(f"the body cannot be read: {error}") from None


def guard(fault: Callable[[str, Exception], None], key: str) -> Any:
    """Return the middleware that answers refusals and errors; `fault` is told of the latter.

    Where there is a `key`, all but `OPEN` is for those who send it.
    """

    @web.middleware
    async def guarded(request: web.Request, handler: Any) -> web.StreamResponse:
        request[ID] = f"req-{secrets.token_hex(8)}"
        try:
            if key and request.path not in OPEN:
                _check_key(request, key)
            return await handler(request)
        except (BadRequest, NotNow) as error:
            return json_of(refusal(error, request[ID]), error.status)
        except web.HTTPException as error:
            why = f"{request.method} {request.path[:200]}: {error.reason}"
            return json_of(refusal(BadRequest(why, error.status), request[ID]), error.status)
        except ConnectionError:
            raise  # the client is gone
        except Exception as error:
            return json_of(refusal(unforeseen(request, error, fault), request[ID]), 500)

    return guarded


def _check_key(request: web.Request, key: str) -> None:
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    right = compare_digest(given.strip().encode("utf-8", "surrogateescape"), key.encode())
    if kind.lower() != "bearer" or not right:
        raise BadRequest("send the service's key as Authorization: Bearer KEY", 401)


def unforeseen(
    request: web.Request, error: Exception, fault: Callable[[str, Exception], None]
) -> NotNow:
    """Return what a client is told of an error that nobody foresaw; the log has it in full."""
    log.error("%s: %s %s", request[ID], request.method, request.path[:200])
    fault("http", error)
    return NotNow(f"request {request[ID]} met an error of the service, which its log has", 500)


async def name_response(request: web.Request, response: web.StreamResponse) -> None:
    """Give every response the id of its request."""
    if ID in request:
        response.headers["X-Request-Id"] = request[ID]


async def cut(request: web.Request, response: web.StreamResponse, error: Any) -> None:
    """End a stream that is not whole: an event says why, and the connection ends unfinished."""
    await response.write(event_of(refusal(error, request[ID])))
    if request.transport is not None:
        request.transport.close()
