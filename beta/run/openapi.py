"""The endpoint as an OpenAPI document, made of the schemas that requests are read by."""

from typing import Any

import msgspec

from beta.run.asked import Asked
from beta.run.http import OPEN, release
from beta.run.tensors import Inference

POSTS = {
    "/v1/models/{name}/classify": Asked,
    "/v2/models/{name}/infer": Inference,
}
GETS = {
    "/v1/models": "the models, their targets and groups",
    "/v2": "what serves",
    "/v2/models/{name}": "what a model takes and answers",
    "/v2/models/{name}/ready": "whether a group with the model serves",
    "/v2/health/live": "whether the process is there",
    "/v2/health/ready": "whether every group serves",
    "/healthz": "whether the process is there",
    "/readyz": "whether every group serves",
    "/metrics": "counts and latencies for Prometheus",
    "/state": "groups and books",
    "/openapi.json": "this document",
}
STATUSES = {
    400: "the request is wrong",
    401: "the service's key is missing",
    404: "no such model or path",
    405: "not by this method",
    408: "the body did not arrive",
    413: "the body is too large",
    429: "admission refuses: the answer would come too late",
    500: "an error of the service",
    503: "no group with the model is up, or the service starts or ends",
    504: "no answer by the deadline",
}


class Failure(msgspec.Struct, frozen=True):
    """What is not answered; below /v2 the error alone."""

    error: str
    rejected: bool = False


def document() -> dict[str, Any]:
    """Return the document (OpenAPI 3.1)."""
    references, schemas = msgspec.json.schema_components(
        (*POSTS.values(), Failure), ref_template="#/components/schemas/{name}"
    )
    failure = {"content": {"application/json": {"schema": references[-1]}}}
    failures = {str(s): {"description": why, **failure} for s, why in STATUSES.items()}
    paths: dict[str, Any] = {
        path: {"get": {"responses": {"200": {"description": what}} | failures}}
        for path, what in GETS.items()
    }
    for path, reference in zip(POSTS, references, strict=False):
        content = {"application/json": {"schema": reference}}
        paths[path] = {
            "post": {
                "requestBody": {"required": True, "content": content},
                "responses": {"200": {"description": "the answer"}} | failures,
            }
        }
    for path, methods in paths.items():
        for method in methods.values():
            if "{name}" in path:
                method["parameters"] = [_name()]
            if path in OPEN:
                method["security"] = []
    return {
        "openapi": "3.1.0",
        "info": {"title": "Beta", "version": release()},
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _name() -> dict[str, Any]:
    return {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
