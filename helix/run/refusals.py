"""Why a request is not answered: one exception of each kind, and one form of error body."""

import msgspec

from helix.run.request import NotNow

KINDS = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "internal_error",
    503: "service_unavailable",
}


class BadRequest(Exception):
    """A request that cannot be served as it is; `status` is HTTP's, `param` the field at fault."""

    def __init__(self, why: str, status: int = 400, param: str | None = None) -> None:
        super().__init__(why)
        self.status, self.param = status, param


class Refusal(msgspec.Struct, frozen=True):
    """An error as the OpenAI interface words it, with the request's number for the log."""

    message: str
    type: str
    param: str | None
    code: int
    id: str


def refusal(error: BadRequest | NotNow, request: str) -> dict[str, Refusal]:
    """Return the body of an error response to the request of this id."""
    param = error.param if isinstance(error, BadRequest) else None
    kind = KINDS.get(error.status, "invalid_request_error")
    return {"error": Refusal(str(error), kind, param, error.status, request)}
