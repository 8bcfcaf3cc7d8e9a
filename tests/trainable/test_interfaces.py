"""The interface for gloo: that of the node's address, unless the user chose one."""

from __future__ import annotations

import os

import pytest

from trainable.interfaces import GLOO_INTERFACE, interface_of, use_interface_of


def test_interface_is_found_by_its_address() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.1") is None  # an address for documentation


@pytest.mark.parametrize(
    ("address", "before", "expected"),
    [("127.0.0.1", None, "lo"), ("127.0.0.1", "eth7", "eth7"), ("192.0.2.1", None, None)],
)
def test_users_choice_of_an_interface_is_kept(
    monkeypatch: pytest.MonkeyPatch, address: str, before: str | None, expected: str | None
) -> None:
    """A cluster may have a faster network than that of its addresses."""
    monkeypatch.setenv(GLOO_INTERFACE, before or "")  # what the test sets is removed at its end
    if before is None:
        del os.environ[GLOO_INTERFACE]
    use_interface_of(address)
    assert os.environ.get(GLOO_INTERFACE) == expected
