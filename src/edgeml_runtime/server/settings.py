"""What the owner of a device decides about its endpoint: a TOML file, strict."""

from __future__ import annotations

import ipaddress
import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec

from edgeml_runtime.errors import EdgemlError, why
from edgeml_runtime.feedback.settings import FeedbackSettings
from edgeml_runtime.records import build
from edgeml_runtime.secret_files import others_may_read
from edgeml_runtime.types import Record

SHORTEST_TOKEN = 16  # characters; 16 random letters and digits are 95 bits, which nobody guesses over a network
_MAKE = "openssl rand -hex 32 > token && chmod 600 token"
Count = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class Settings(Record, frozen=True, kw_only=True):
    """How the endpoint listens, what it takes, and how much of the machine it may use.

    Who connects over `host` and `port`, which may be 0 for any free one, must show the token that `token_file` holds;
    without one, `host` must be this machine alone. At most `connections` are open at once.

    A request's body has at most `request_bytes` and `rows` rows or texts, and comes within `read_timeout_s`, its
    headers too; who reads nothing of an unread answer for `write_timeout_s` is cut off. `queue` requests may wait for
    the one that runs; another is turned away, and from then on only `standing_queue` may wait, until nobody does. From
    its arrival to its answer a request has `time_limit_s`. At the end, what runs has `stop_s` to finish, or is refused.

    `context_tokens` is the longest of prompt and answer together, at most what the model reads, and
    `max_new_tokens` the length of an answer for which a request states none. `batch_tokens` is the most tokens, padding
    included, of texts that are embedded together; 0 runs every text alone; left out, so does a quantized model, whose
    vectors depend on what else is in the batch. `kept_bytes` is the memory for the state of prompts' beginnings that
    come again (GGUF), 0 for none. `threads` is left out for every fast core.

    `feedback` is kept only where its table is there.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8080
    token_file: str | None = None
    connections: Count = 256
    request_bytes: Count = 4_000_000
    rows: Count = 256
    read_timeout_s: Seconds = 10.0
    write_timeout_s: Seconds = 30.0
    queue: Count = 16
    standing_queue: Count = 2
    time_limit_s: Seconds = 60.0
    stop_s: Seconds = 10.0
    context_tokens: Count = 4096
    max_new_tokens: Count = 256
    batch_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    kept_bytes: Annotated[int, msgspec.Meta(ge=0)] = 64_000_000
    threads: Count | None = None
    feedback: FeedbackSettings | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)


def read_settings(path: Path | None, **replaced: Any) -> Settings:
    """The settings of a TOML file, or the defaults; what is `replaced` and not None counts instead.

    A path that begins with ~/ leads into the home of who runs this.

    Raises EdgemlError for a file that is no TOML, for an unknown key, with the nearest known one, for a value out of
    its range, and for a host that others reach without a token.
    """
    plain = _toml(path) if path else {}
    plain |= {name: value for name, value in replaced.items() if value is not None}
    _lead_home(plain, "token_file")
    _lead_home(plain.get("feedback"), "file", "key_file")
    settings = build(plain, Settings, where=str(path) if path else "the settings")
    if not settings.is_loopback and settings.token_file is None:
        hint = f"make one and name it by token_file or --token-file: {_MAKE}"
        raise EdgemlError(f"{settings.host} is reached by others, and no token protects it", hint=hint)
    return settings


def read_token(settings: Settings) -> str | None:
    """The token that requests must show; None where none is wanted.

    Raises EdgemlError for a file that others may read, or whose token is short.
    """
    if settings.token_file is None:
        return None
    path = Path(settings.token_file)
    try:
        is_open, text = others_may_read(path), path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise EdgemlError(f"cannot read the token in {path}: {why(error)}", hint=f"make one: {_MAKE}") from error
    if is_open:
        raise EdgemlError(f"others may read the token in {path}", hint=f"chmod 600 {path}")
    if len(text) < SHORTEST_TOKEN or not text.isprintable() or " " in text:
        problem = f"the token in {path} is no word of {SHORTEST_TOKEN} characters or more"
        raise EdgemlError(problem, hint=f"make one: {_MAKE}")
    return text


def is_loopback(host: str) -> bool:
    """Whether a host, by name or address, is this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _lead_home(table: Any, *names: str) -> None:
    """Paths of a table with what ~/ stands for, since no shell reads the file. What is no table is left alone."""
    for name in names if isinstance(table, dict) else ():
        if isinstance(text := table.get(name), str) and text.startswith("~/"):
            try:
                table[name] = str(Path(text).expanduser())
            except RuntimeError as error:  # of a user without one
                raise EdgemlError(f"{name} is {text}, and there is no home", hint="write the whole path") from error


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        hint = "write a TOML file, such as: port = 8080"
        raise EdgemlError(f"cannot read {path}: {why(error)}", hint=hint) from error
