"""The HTTP endpoint of a controller: ours, and the Open Inference Protocol (`inference`) beside it.

`POST /v1/models/NAME/classify` with `{"tokens": [ids], "slo_s": seconds}` (the target is optional),
or `"text"` in place of tokens where the model's folder has a tokenizer,
answers 200 with logits and the label of the largest; 429 where admission refuses, 503 where no
group is up, 504 where the answer did not come in time, 4xx where the request is wrong, 500 where
the service erred. Whatever is not 200 says `{"error": a sentence, "rejected": by admission}`.
`GET /v1/models`, `/healthz` (the process), `/readyz` (every group), `/metrics` (Prometheus),
`/state` (groups, books) and `/openapi.json`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from beta.run.asked import asked_of
from beta.run.http import application, body_of, error_of, json_of
from beta.run.inference import Inferences
from beta.run.openapi import document
from common.errors import InputError

if TYPE_CHECKING:
    from beta.run.controller import Controller


async def open_endpoint(controller: Controller) -> tuple[web.AppRunner, str]:
    """Listen where the deployment says; return the server and its URL."""
    routes = [*_Routes(controller).table(), *Inferences(controller).table()]
    app = application(routes, controller.deployment.api_key)
    # A compressed body stays as it is: it is refused, whatever it would grow to.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0, auto_decompress=False)
    await runner.setup()
    site = web.TCPSite(runner, controller.deployment.host, controller.deployment.port)
    await site.start()
    host, port = runner.addresses[0][:2]
    return runner, f"http://{host}:{port}"


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
            web.get("/openapi.json", self.openapi),
        ]

    async def classify(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        number = self.controller.number.get(name)
        try:
            if number is None:
                raise web.HTTPNotFound(reason=f"no model {name[:80]!r}; /v1/models lists them")
            model = self.controller.deployment.models[number]
            asked = asked_of(await body_of(request), model, self.controller.tokenizers.tokens)
        except (InputError, web.HTTPException):
            self.books.refuse()
            raise
        answer = await self.controller.submit(number, asked.tokens, asked.slo_s)
        if answer.outcome != "served":
            refused = answer.outcome == "rejected"
            return error_of(request, answer.reason, answer.status, rejected=refused)
        label = max(range(len(answer.logits)), key=answer.logits.__getitem__, default=None)
        return json_of({"label": label, "logits": answer.logits, "group": answer.group})

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
        return json_of({"models": rows})

    async def health(self, _: web.Request) -> web.Response:
        return json_of({"status": "ok"})

    async def ready(self, _: web.Request) -> web.Response:
        down = [g.spec.number for g in self.controller.groups if g.ready is None]
        ready, ending = self.controller.serves and not down, self.controller.draining
        told = {"ready": ready, "down": down, "ending": ending}
        return json_of(told, 200 if ready else 503)

    async def openapi(self, _: web.Request) -> web.Response:
        return json_of(document())

    async def metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self.books.page(), content_type="text/plain")

    async def state(self, _: web.Request) -> web.Response:
        totals = self.books.totals()
        return json_of(
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
