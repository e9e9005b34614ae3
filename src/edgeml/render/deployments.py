"""What became of deployments, and what is installed on devices, as text."""

from __future__ import annotations

from collections.abc import Sequence

from edgeml.inventory import Deployment, Installed
from edgeml.render.tables import Column, size, table

_SHORT = 12  # digits of a version


def deployments(found: Sequence[Deployment], width: int) -> list[str]:
    """A table of devices, and under it why some have no new version."""
    columns = [
        Column(title="device", cells=tuple(one.device for one in found)),
        Column(title="bundle", cells=tuple(one.bundle for one in found), rank=2),
        Column(title="outcome", cells=tuple(one.outcome for one in found)),
        Column(title="before", cells=tuple(_version(one, one.before) for one in found), rank=1),
        Column(title="now", cells=tuple(_version(one, one.after) for one in found)),
        Column(title="sent", cells=tuple(_sent(one.sent_bytes) for one in found), right=True, rank=3),
        Column(
            title="s", cells=tuple("" if one.seconds is None else f"{one.seconds:.1f}" for one in found), right=True
        ),
    ]
    reasons = [f"{one.device}: {one.reason}" for one in found if one.reason]
    warnings = [f"warning: {text}" for one in found for text in one.warnings]
    return ["\n".join([table(columns, width), *reasons, *warnings])]


def installed(found: Sequence[Installed], width: int) -> list[str]:
    """A table of what devices have, and under it which could not be asked."""
    columns = [
        Column(title="device", cells=tuple(one.device for one in found)),
        Column(title="bundle", cells=tuple(one.bundle or "none" for one in found)),
        Column(title="version", cells=tuple(_short(one.current) for one in found)),
        Column(title="model", cells=tuple(_short(one.model) for one in found), rank=1),
        Column(title="runtime", cells=tuple(_short(one.runtime) for one in found), rank=1),
        Column(title="previous", cells=tuple(_short(one.previous) for one in found), rank=2),
        Column(title="endpoint", cells=tuple(_endpoint(one.serves) for one in found), rank=3),
    ]
    return ["\n".join([table(columns, width), *(f"{one.device}: {one.reason}" for one in found if one.reason)])]


def _version(one: Deployment, version: str | None) -> str:
    """Empty where the device was not asked: it may well have one."""
    is_known = one.sent_bytes is not None or one.before or one.after
    return _short(version) if is_known else ""


def _short(version: str | None) -> str:
    return (version or "none")[:_SHORT]


def _sent(count: int | None) -> str:
    return "" if count is None else f"{count / 1000:.1f} kB" if count < 1e5 else size(count)


def _endpoint(serves: bool | None) -> str:  # noqa: FBT001
    return "no service" if serves is None else "runs" if serves else "stopped"
