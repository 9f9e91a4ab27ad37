"""`make setup` installs with uv as pip would, or says why not and takes pip."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

import install

LISTING = r"""
:env:.default-timeout='180'
:env:.find-links='/wheels /more'
global.cert='/etc/certs.pem'
global.extra-index-url='\nhttps://one.example/simple\nhttps://two.example/simple'
global.find-links='/older'
global.no-index='false'
install.constraint='/etc/constraints.txt'
list.format='columns'
"""


def test_uv_is_told_what_pip_is_configured_with() -> None:
    flags, variables = install.for_uv(install.settings(LISTING))
    pairs = list(zip(flags[::2], flags[1::2], strict=True))
    assert pairs == [
        ("--constraint", "/etc/constraints.txt"),
        ("--extra-index-url", "https://one.example/simple"),
        ("--extra-index-url", "https://two.example/simple"),
        ("--find-links", "/wheels"),
        ("--find-links", "/more"),
        ("--index-strategy", "unsafe-best-match"),
    ]
    assert variables == {"UV_HTTP_TIMEOUT": "180", "SSL_CERT_FILE": "/etc/certs.pem"}


def test_a_switch_is_passed_on_only_when_it_is_on() -> None:
    assert install.for_uv({"no-index": "true"})[0] == ["--no-index"]
    assert install.for_uv({"no-index": "0"})[0] == []


def test_an_option_without_a_counterpart_is_not_dropped() -> None:
    with pytest.raises(install.UvError, match="require-hashes"):
        install.for_uv({"require-hashes": "1"})


@pytest.mark.parametrize("broken", ["config", "uv", "install"])
def test_pip_takes_over_and_one_line_says_why(
    broken: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        listing = "global.require-hashes='1'\n" if broken == "config" else ""
        fails = command[-1] == "uv" if broken == "uv" else broken == "install" and command[2] == "uv"
        return subprocess.CompletedProcess(command, int(fails), listing, "no such wheel\n")

    monkeypatch.setattr(subprocess, "run", run)
    assert install.install(["--no-deps", "timm"]) == 0
    assert calls[-1] == [*install.PIP, "install", "--quiet", "--no-deps", "timm"]
    said = capsys.readouterr().err
    assert {"config": "require-hashes", "uv": "uv could not be", "install": "no such wheel"}[broken] in said
    assert said.endswith("pip installs instead: --no-deps timm\n") and said.count("\n") == 1
