"""The Open Inference Protocol (KServe v2) over HTTP: routes of the same controller.

Each row of a request is a request of the controller, which batches them with all others. If one is
not served, the answer is its error: 429, 503 or 504 as with ours.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from beta.run.asked import check
from beta.run.http import body_of, error_of, json_of, release
from beta.run.tensors import VERSION, answer_of, inference_of, metadata_of, rows_of
from common.errors import InputError

if TYPE_CHECKING:
    from beta.run.controller import Controller

BINARY = "Inference-Header-Content-Length"
"""Header of the binary extension, which is not spoken."""


class Inferences:
    """The routes below /v2."""

    def __init__(self, controller: Controller) -> None:
        self.controller, self.books = controller, controller.books

    def table(self) -> list[web.RouteDef]:
        """Return them."""
        each = [
            route
            for model in ("/v2/models/{name}", f"/v2/models/{{name}}/versions/{VERSION}")
            for route in (
                web.get(model, self.metadata),
                web.get(f"{model}/ready", self.model_ready),
                web.post(f"{model}/infer", self.infer),
            )
        ]
        return [
            web.get("/v2", self.server),
            web.get("/v2/health/live", self.live),
            web.get("/v2/health/ready", self.ready),
            *each,
        ]

    async def server(self, _: web.Request) -> web.Response:
        """Tell what serves."""
        return json_of({"name": "beta", "version": release(), "extensions": []})

    async def live(self, _: web.Request) -> web.Response:
        """Tell that the process is there."""
        return json_of({"live": True})

    async def ready(self, _: web.Request) -> web.Response:
        """Tell whether every group serves."""
        ready = self.controller.serves and all(g.ready is not None for g in self.controller.groups)
        return json_of({"ready": ready}, 200 if ready else 503)

    async def metadata(self, request: web.Request) -> web.Response:
        """Tell what a model takes and answers."""
        model = self.controller.deployment.models[self._number(request)]
        return json_of(metadata_of(model, model.shape.labels))

    async def model_ready(self, request: web.Request) -> web.Response:
        """Tell whether a group with the model serves."""
        controller, number = self.controller, self._number(request)
        up = [g for g in controller.hosts[number] if controller.groups[g].ready is not None]
        ready = controller.serves and bool(up)
        name = controller.deployment.models[number].name
        return json_of({"name": name, "ready": ready}, 200 if ready else 503)

    async def infer(self, request: web.Request) -> web.Response:
        """Answer all rows of a request."""
        try:
            number = self._number(request)
            model = self.controller.deployment.models[number]
            if BINARY in request.headers:
                raise InputError("binary tensors are not supported; send data as JSON")
            asked = inference_of(await body_of(request))
            rows, slo_s = rows_of(asked), _slo_of(asked.slo_s)
            for row in rows:
                check(row, slo_s, model)
        except (InputError, web.HTTPException):
            self.books.refuse()
            raise
        answers = await asyncio.gather(
            *(self.controller.submit(number, row, slo_s) for row in rows)
        )
        for answer in answers:
            if answer.outcome != "served":
                return error_of(request, answer.reason, answer.status)
        return json_of(answer_of(asked, model, answers))

    def _number(self, request: web.Request) -> int:
        name = request.match_info["name"]
        number = self.controller.number.get(name)
        if number is None:
            raise web.HTTPNotFound(reason=f"no model {name[:80]!r}; /v1/models lists them")
        return number


def _slo_of(given: Any) -> float | None:
    try:
        return msgspec.convert(given, float | None)
    except msgspec.ValidationError as error:
        raise InputError(f"parameters.slo_s: {error}") from error
