"""What operators ask of the service: its models, health, metrics and version."""

import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from aiohttp import web

from helix.run.asks import Model
from helix.run.http_guard import json_of
from helix.run.metrics import Metrics
from helix.run.openapi import document
from helix.run.refusals import BadRequest
from helix.run.serving import Serving

DISTRIBUTION = "quintet"


class Admin:
    """The handlers that answer at once."""

    def __init__(self, serving: Serving, model: Model) -> None:
        """Answer for this service."""
        self.serving, self.model = serving, model
        self.metrics = Metrics(serving)
        self.began = int(time.time())

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add the routes."""
        router.add_get("/v1/models", self.models)
        router.add_get("/v1/models/{id:.+}", self.one_model)
        router.add_get("/health", self.health)
        router.add_get("/metrics", self.prometheus)
        router.add_get("/version", self.version)
        router.add_get("/openapi.json", self.openapi)

    async def models(self, _: web.Request) -> web.Response:
        """Name the one model."""
        return json_of({"object": "list", "data": [self._model()]})

    async def one_model(self, request: web.Request) -> web.Response:
        """Describe the model, if it is the one that is meant."""
        name = request.match_info["id"]
        if name != self.model.name:
            why = f"there is no model {name[:80]!r}; this is {self.model.name!r}"
            raise BadRequest(why, 404, "model")
        return json_of(self._model())

    def _model(self) -> dict[str, Any]:
        return {
            "id": self.model.name,
            "object": "model",
            "created": self.began,
            "owned_by": "helix",
            "max_model_len": self.model.config.longest,
            "chat_template": self.model.template.origin,
        }

    async def version(self, _: web.Request) -> web.Response:
        """Return the version of this distribution."""
        return json_of({"version": _version()})

    async def openapi(self, _: web.Request) -> web.Response:
        """Return the OpenAPI document."""
        return json_of(document(_version()))

    async def health(self, _: web.Request) -> web.Response:
        """Say whether requests can be served, and with which machines."""
        serving = self.serving
        said = {
            "status": serving.state,
            "machines": {str(m): one.pid for m, one in sorted(serving.fleet.workers.items())},
            "lost": sorted(serving.gone),
            "lost_links": sorted(serving.broken),
            "faults": dict(serving.faults),
            "services": [one.name for one in serving.services],
            "running": len(serving.head.running),
            "waiting": len(serving.head.waiting),
            "books": serving.head.books,
        }
        return json_of(said, 200 if serving.ready else 503)

    async def prometheus(self, _: web.Request) -> web.Response:
        """Return the metrics in Prometheus' text format."""
        text, kind = await self.metrics.page()
        return web.Response(body=text, headers={"Content-Type": kind})


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "not installed"
