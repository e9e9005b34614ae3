"""What a user is told of a request that cannot be met."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgeml.errors import EdgemlError


def refusal(call: Callable[..., object], *args: object, **options: object) -> str:
    """The sentence with which a call is refused; there is a hint as well."""
    with pytest.raises(EdgemlError) as caught:
        call(*args, **options)
    assert caught.value.hint
    return caught.value.message
