"""Why a request gets no answer, as OpenAI's clients read it."""

from __future__ import annotations

from typing import Any

CHARACTERS_A_TOKEN = 32  # longer texts are not even counted, which takes seconds a megabyte; usual are 3 to 5
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class RefusedError(Exception):
    """A request that is not answered: its status, one sentence, and what of the request it is about, if anything."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, place: str | None = None, headers: Any = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.place = place
        self.headers: dict[str, str] = headers or {}

    def shape(self) -> dict[str, Any]:
        """The body of the response."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.place, "code": self.code}}


def wrong(message: str, place: str | None = None, *, code: str | None = None) -> RefusedError:
    """The refusal of what a client sent; `place` is the part that is wrong."""
    return RefusedError(400, message, place=place, code=code)


def busy(wait_s: int) -> RefusedError:
    """The refusal of one request too many; `wait_s` is when there may be room."""
    message = "too many requests wait already"
    return RefusedError(429, message, code="queue_full", headers={"retry-after": str(wait_s)})


def late(limit_s: float, wait_s: int, *, began: bool) -> RefusedError:
    """The refusal of a request that this endpoint did not answer in time: it waited, or its answer took too long."""
    if began:
        return RefusedError(503, f"the answer takes longer than {limit_s:g} s", code="time_limit")
    message = f"the request waited for longer than {limit_s:g} s"
    return RefusedError(503, message, code="time_limit", headers={"retry-after": str(wait_s)})


def stopping() -> RefusedError:
    """The refusal of a request whose answer is not there when the endpoint ends."""
    return RefusedError(503, "the endpoint is being stopped", code="stopping")


def require_countable(characters: int, tokens: int, name: str) -> None:
    """Raise the refusal of a text that is far longer than so many tokens, before anybody counts its tokens."""
    most = CHARACTERS_A_TOKEN * tokens
    if characters > most:
        problem = f"the text has {characters} characters, and {name}, which reads {tokens} tokens here, takes {most}"
        raise wrong(problem, code="context_length_exceeded")
