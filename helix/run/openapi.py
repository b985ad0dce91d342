"""The interface as an OpenAPI document, made of the schema that every request is read by."""

from typing import Any

import msgspec

from helix.run.refusals import Refusal
from helix.run.requests_schema import Chat, Completion, Detokenize, Tokenize

POSTS = {
    "/v1/completions": Completion,
    "/v1/chat/completions": Chat,
    "/tokenize": Tokenize,
    "/detokenize": Detokenize,
}
GETS = ("/v1/models", "/v1/models/{id}", "/health", "/metrics", "/version", "/openapi.json")
STATUSES = (400, 401, 404, 408, 413, 429, 500, 503)


class Failure(msgspec.Struct, frozen=True):
    """The body of every response that is not 200, but for /health."""

    error: Refusal


def document(version: str) -> dict[str, Any]:
    """Return the document (OpenAPI 3.1) of a service of this version."""
    references, schemas = msgspec.json.schema_components(
        (*POSTS.values(), Failure), ref_template="#/components/schemas/{name}"
    )
    failure = {"content": {"application/json": {"schema": references[-1]}}}
    failures = {str(s): {"description": "see error.message", **failure} for s in STATUSES}
    answered = {"200": {"description": "the answer"}}
    paths: dict[str, Any] = {
        path: {
            "post": {
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": reference}},
                },
                "responses": answered | failures,
            }
        }
        for path, reference in zip(POSTS, references, strict=False)
    }
    for path in GETS:
        paths[path] = {"get": {"responses": answered | failures}}
    paths["/v1/models/{id}"]["get"]["parameters"] = [
        {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    ]
    return {
        "openapi": "3.1.0",
        "info": {"title": "Helix", "version": version},
        "paths": paths,
        "components": {"schemas": schemas},
    }
