"""Which proxy is used for what."""

from __future__ import annotations

import pytest

from kb_builder.ask.endpoint.proxies import is_loopback, proxy_for, spare_loopback

NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without any."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.9.8.7", "127.1", "2130706433", "0x7f000001", "localhost", "LOCALHOST.", "a.localhost",
     "::1", "[::1]", "::ffff:127.0.0.1", "0.0.0.0", "::"],
)  # fmt: skip
def test_loopback_in_every_spelling(host: str) -> None:
    """Whatever connects to this machine itself."""
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["", None, "10.0.0.1", "128.0.0.1", "localhost.example.com", "mylocalhost", "api.openai.com", "1e5",
     "fe80::1", "127.example.com"],
)  # fmt: skip
def test_other_hosts_are_not_loopback(host: str | None) -> None:
    """However they begin or end."""
    assert not is_loopback(host)


def test_the_environment_names_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """By scheme, `ALL_PROXY` last; NO_PROXY is heard; loopback goes through none; no password is shown."""
    assert proxy_for("https://api.openai.com/v1") is None
    monkeypatch.setenv("HTTPS_PROXY", "http://user:planted@proxy:3128")
    found = proxy_for("https://api.openai.com/v1")
    assert found is not None and found.url == "http://user:planted@proxy:3128"
    assert found.shown == "http://proxy:3128 (HTTPS_PROXY)"
    assert proxy_for("http://api.openai.com/v1") is None
    monkeypatch.setenv("all_proxy", "proxy2:1")
    other = proxy_for("http://10.0.0.5:8000/v1")
    assert other is not None and other.shown == "http://proxy2:1 (all_proxy)"
    monkeypatch.setenv("NO_PROXY", "10.0.0.5,openai.com")
    assert proxy_for("http://10.0.0.5:8000/v1") is None
    assert proxy_for("https://api.openai.com/v1") is None
    monkeypatch.delenv("NO_PROXY")
    for host in ("127.0.0.1", "localhost", "[::1]", "127.0.0.9"):
        assert proxy_for(f"https://{host}:8000/v1") is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, None),
        ({"HTTP_PROXY": "p"}, "127.0.0.1,localhost,::1"),
        ({"https_proxy": "p", "NO_PROXY": "a, b"}, "a,b,127.0.0.1,localhost,::1"),
        ({"ALL_PROXY": "p", "no_proxy": "localhost", "NO_PROXY": "x"}, "localhost,127.0.0.1,::1"),
        ({"HTTP_PROXY": "p", "NO_PROXY": "*"}, "*"),
    ],
)
def test_loopback_is_added_to_no_proxy(before: dict[str, str], after: str | None) -> None:
    """Only where a proxy is set, beside what stands there; both spellings say the same afterwards."""
    environment = dict(before)
    spare_loopback(environment)
    assert environment.get("no_proxy", environment.get("NO_PROXY")) == after
    if after not in {None, "*"}:
        assert environment["NO_PROXY"] == after
