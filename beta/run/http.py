"""What every request of the endpoint passes: its key, its body as bytes, one form for errors."""

import asyncio
import logging
from hmac import compare_digest
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec
from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import HttpProcessingError

from common.errors import InputError

log = logging.getLogger("beta")

LARGEST_BODY = 1 << 20
BODY_S = 60.0
"""A body that takes longer is refused."""
OPEN = frozenset(
    ("/healthz", "/readyz", "/metrics", "/openapi.json", "/v2/health/live", "/v2/health/ready")
)
"""Without a key: what says whether the service is well, and how it is asked."""
INFERENCE = "/v2"
"""Below it errors have the Open Inference Protocol's form: the sentence alone."""
UNREADABLE = (
    ClientPayloadError, web.RequestPayloadError, web.PayloadAccessError, HttpProcessingError
)  # fmt: skip


def application(routes: list[web.RouteDef], key: str = "") -> web.Application:
    """Return an application in which whatever goes wrong is answered in the one form.

    Where there is a `key`, all but `OPEN` is for those who send it.
    """
    app = web.Application(client_max_size=LARGEST_BODY, middlewares=[_guard(key)])
    app.add_routes(routes)
    return app


async def body_of(request: web.Request) -> bytes:
    """Return a body as it was sent. Raises InputError, or aiohttp's error with another status."""
    coding = request.headers.get("Content-Encoding", "identity")
    if coding.lower() != "identity":
        raise InputError(f"Content-Encoding {coding[:80]!r} is not supported")
    try:
        async with asyncio.timeout(BODY_S):
            return await request.read()
    except TimeoutError:
        why = f"the body did not arrive within {BODY_S:g} s"
        raise web.HTTPRequestTimeout(reason=why) from None
    except web.HTTPRequestEntityTooLarge:
        why = f"the body is larger than {LARGEST_BODY} bytes"
        raise web.HTTPRequestEntityTooLarge(LARGEST_BODY, reason=why) from None
    except UNREADABLE as error:
        raise InputError(f"the body cannot be read: {error}") from None


def release() -> str:
    """Return the version of this software; empty where it was not installed as a package."""
    try:
        return version("quintet")
    except PackageNotFoundError:
        return ""


def json_of(value: Any, status: int = 200) -> web.Response:
    """Return a response with this value as JSON."""
    body = msgspec.json.encode(value)
    return web.Response(body=body, status=status, content_type="application/json")


def error_of(
    request: web.Request, why: str, status: int, *, rejected: bool = False
) -> web.Response:
    """Return the response of what is not answered; `rejected`: admission refused it."""
    told: dict[str, Any] = {"error": " ".join(why.split())}
    inside = request.path == INFERENCE or request.path.startswith(f"{INFERENCE}/")
    return json_of(told if inside else told | {"rejected": rejected}, status)


def _guard(key: str) -> Any:
    @web.middleware
    async def guarded(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            if key and request.path not in OPEN:
                _check_key(request, key)
            return await handler(request)
        except InputError as error:
            return error_of(request, str(error), 400)
        except web.HTTPException as error:
            return error_of(request, error.reason, error.status)
        except ConnectionError:
            raise  # the client is gone
        except Exception as error:
            log.exception("%s %s", request.method, request.path[:200])
            why = f"an error of the service: {type(error).__name__}"
            return error_of(request, why, 500)

    return guarded


def _check_key(request: web.Request, key: str) -> None:
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    right = compare_digest(given.strip().encode("utf-8", "surrogateescape"), key.encode())
    if kind.lower() != "bearer" or not right:
        why = "send the service's key as Authorization: Bearer KEY"
        raise web.HTTPUnauthorized(reason=why)
