"""The HTTP endpoint of a controller.

`POST /v1/models/NAME/classify` with `{"tokens": [ids], "slo_s": seconds}` (the target is optional)
answers 200 with logits and the label of the largest; 429 where admission refuses, 503 where no
group is up, 504 where the answer did not come in time, 400, 404 or 413 with a sentence where the
request is wrong. `GET /v1/models`, `/healthz` (the process), `/readyz` (every group), `/metrics`
(Prometheus) and `/state` (groups, books).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from beta.run.specs import ModelSpec
from common.errors import InputError

if TYPE_CHECKING:
    from beta.run.controller import Controller

LARGEST_BODY = 1 << 20


class Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a request."""

    tokens: list[int]
    slo_s: float | None = None


async def open_endpoint(controller: Controller) -> tuple[web.AppRunner, str]:
    """Listen where the deployment says; return the server and its URL."""
    app = web.Application(client_max_size=LARGEST_BODY)
    app.add_routes(_Routes(controller).table())
    # A compressed body is read as it is, and so refused as no JSON.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0, auto_decompress=False)
    await runner.setup()
    site = web.TCPSite(runner, controller.deployment.host, controller.deployment.port)
    await site.start()
    host, port = runner.addresses[0][:2]
    return runner, f"http://{host}:{port}"


def asked_of(body: bytes, model: ModelSpec) -> Asked:
    """Return what a body asks. Raises InputError with one sentence."""
    try:
        asked = msgspec.json.decode(body, type=Asked)
    except msgspec.DecodeError as error:
        raise InputError(f'expected {{"tokens": [ids], "slo_s": seconds}}: {error}') from error
    limit = model.shape.sequence
    if not 1 <= len(asked.tokens) <= limit:
        raise InputError(f"{len(asked.tokens)} tokens; {model.name} takes 1 to {limit}")
    high = model.shape.vocabulary
    if min(asked.tokens) < 0 or max(asked.tokens) >= high:
        raise InputError(f"token ids of {model.name} are 0 to {high - 1}")
    if asked.slo_s is not None and not 0 < asked.slo_s <= 3600:
        raise InputError(f"slo_s is {asked.slo_s:g}, expected seconds above 0 and up to 3600")
    return asked


class _Routes:
    def __init__(self, controller: Controller) -> None:
        self.controller, self.books = controller, controller.books

    def table(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/models/{name}/classify", self.classify),
            web.get("/v1/models", self.models),
            web.get("/healthz", self.health),
            web.get("/readyz", self.ready),
            web.get("/metrics", self.metrics),
            web.get("/state", self.state),
        ]

    async def classify(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        number = self.controller.number.get(name)
        if number is None:
            self.books.refuse()
            return _json({"error": f"no model {name!r}; /v1/models lists them"}, 404)
        try:
            asked = asked_of(await request.read(), self.controller.deployment.models[number])
        except web.HTTPRequestEntityTooLarge:
            self.books.refuse()
            return _json({"error": f"the body is larger than {LARGEST_BODY} bytes"}, 413)
        except InputError as error:
            self.books.refuse()
            return _json({"error": " ".join(str(error).split())}, 400)
        answer = await self.controller.submit(number, asked.tokens, asked.slo_s)
        if answer.outcome != "served":
            rejected = answer.outcome == "rejected"
            return _json({"error": answer.reason, "rejected": rejected}, answer.status)
        label = max(range(len(answer.logits)), key=answer.logits.__getitem__, default=None)
        return _json({"label": label, "logits": answer.logits, "group": answer.group})

    async def models(self, _: web.Request) -> web.Response:
        controller = self.controller
        rows = [
            {
                "name": model.name,
                "slo_s": model.slo_s,
                "tokens": model.shape.sequence,
                "groups": controller.hosts[m].tolist(),
            }
            for m, model in enumerate(controller.deployment.models)
        ]
        return _json({"models": rows})

    async def health(self, _: web.Request) -> web.Response:
        return _json({"status": "ok"})

    async def ready(self, _: web.Request) -> web.Response:
        down = [g.spec.number for g in self.controller.groups if g.ready is None]
        ending = self.controller.draining
        status = 503 if down or ending else 200
        return _json({"ready": status == 200, "down": down, "ending": ending}, status)

    async def metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self.books.page(), content_type="text/plain")

    async def state(self, _: web.Request) -> web.Response:
        totals = self.books.totals()
        return _json(
            {
                "books": totals._asdict(),
                "balanced": totals.balanced,
                "groups": [
                    {
                        "op": group.spec.op,
                        "pp": group.spec.pp,
                        "models": [self.controller.deployment.models[m].name for m in models],
                        "outstanding": int(self.controller.outstanding[g]),
                        "ready": None if group.ready is None else msgspec.to_builtins(group.ready),
                    }
                    for g, group in enumerate(self.controller.groups)
                    for models in [group.spec.models]
                ],
            }
        )


def _json(value: Any, status: int = 200) -> web.Response:
    body = msgspec.json.encode(value)
    return web.Response(body=body, status=status, content_type="application/json")
