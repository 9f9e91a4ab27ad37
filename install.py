"""Install packages beside this interpreter: `python install.py`, with the arguments of `pip install`.

uv does it, in a quarter of the time. It reads none of pip's configuration, so it is told what stands there
(indexes, wheels on disk, certificates, constraints). Where pip is configured in a way that uv does not know,
or uv fails, pip installs, and one line says why.
"""

from __future__ import annotations

import ast
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
UV = [sys.executable, "-m", "uv", "--quiet", "--no-config", "pip", "install", "--python", sys.executable]

# What uv is told in place of an option of pip: a flag that takes the value, or a variable of the environment.
FLAGS = {
    "index-url": "--index-url",
    "extra-index-url": "--extra-index-url",
    "find-links": "--find-links",
    "constraint": "--constraint",
    "trusted-host": "--allow-insecure-host",
    "only-binary": "--only-binary",
    "no-binary": "--no-binary",
}
SWITCHES = {"no-index": "--no-index", "pre": "--prerelease=allow", "no-cache-dir": "--no-cache"}
VARIABLES = {
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "retries": "UV_HTTP_RETRIES",
}
# What changes nothing that is installed.
COSMETIC = {"disable-pip-version-check", "quiet", "verbose", "no-color", "progress-bar", "no-input", "log"}
COSMETIC |= {"root-user-action", "no-warn-script-location", "require-virtualenv", "cache-dir"}


class UvError(Exception):
    """pip is configured in a way that has no counterpart in uv."""


def settings(listing: str) -> dict[str, str]:
    """The options that `pip config list` prints, by name: an environment variable's value before a file's."""
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listing.splitlines():
        place, _, value = line.partition("=")
        section, _, name = place.rpartition(".")
        if section in found:
            found[section][name] = str(ast.literal_eval(value))
    return found["global"] | found["install"] | found[":env:"]


def for_uv(options: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """The flags and variables by which uv does as pip's `options` say; raises UvError."""
    flags: list[str] = []
    variables: dict[str, str] = {}
    for name, value in sorted(options.items()):
        if name in FLAGS:
            for item in value.split():
                flags += [FLAGS[name], item]
        elif name in SWITCHES:
            if value.lower() in ("1", "true", "yes", "on"):
                flags.append(SWITCHES[name])
        elif name in VARIABLES:
            variables[VARIABLES[name]] = value
        elif name not in COSMETIC:
            raise UvError(f"pip is configured with {name}, which uv does not know")
    if "--extra-index-url" in flags:  # as pip does it: the best version of all indexes
        flags += ["--index-strategy", "unsafe-best-match"]
    return flags, variables


def install(arguments: list[str]) -> int:
    """Install as `pip install` with these arguments would; the exit status."""
    try:
        listing = subprocess.run([*PIP, "config", "list"], capture_output=True, text=True, check=True).stdout
        flags, variables = for_uv(settings(listing))
        wanted = ["install", "--quiet", "--constraint", "constraints.txt", "uv"]
        if subprocess.run([*PIP, *wanted], stderr=subprocess.DEVNULL).returncode:
            raise UvError("uv could not be installed")
        made = subprocess.run(
            [*UV, *flags, *arguments], env=os.environ | variables, capture_output=True, text=True
        )
        if made.returncode == 0:
            return 0
        raise UvError(f"uv failed: {(made.stderr.strip() or 'no message').splitlines()[-1]}")
    except UvError as reason:
        print(f"{reason}; pip installs instead: {shlex.join(arguments)}", file=sys.stderr)
        return subprocess.run([*PIP, "install", "--quiet", *arguments]).returncode


if __name__ == "__main__":
    sys.exit(install(sys.argv[1:]))
