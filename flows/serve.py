"""`make serve`: a Prefect server on loopback if none answers, and one process that serves the deployments.

prefect.yaml lists the deployments, pyproject.toml the server's address ([tool.prefect], api.url). Both are
read from the current folder, as Prefect's own commands do: run this in the root of the repository.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import httpx
import yaml  # type: ignore[import-untyped]
from prefect import serve
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Schedule
from prefect.settings import get_current_settings

from data.errors import InputError, UniBindError, first_line
from flows import automations
from flows.silent_runs import orphans_ended, watch_silent_runs

START_SECONDS = 120.0  # a first start creates the database, which takes 10 to 30 seconds on a slow disk
STOP_SECONDS = 20.0
LIVES_SECONDS = 5.0  # a server that ends sooner is not started again
LOOPBACK = {"127.0.0.1", "localhost", "::1"}


def main() -> None:
    """Serve until Ctrl-C; a user's mistake is one line on stderr."""
    for ending in (signal.SIGTERM, signal.SIGHUP):  # as after Ctrl-C, run the `finally` blocks
        signal.signal(ending, _leave)
    try:
        to_serve = deployments(Path("prefect.yaml"))
        with server(api_url()), orphans_ended():
            asyncio.run(watch_silent_runs())
            asyncio.run(automations.create())
            # One run at a time: each uses every core, and a knowledge base has one writer.
            serve(*to_serve, limit=1, pause_on_shutdown=False)
    except UniBindError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def deployments(path: Path) -> list[RunnerDeployment]:
    """Read prefect.yaml: the deployments as `serve` takes them. Raises InputError where there is none."""
    try:
        listed = yaml.safe_load(path.read_text(encoding="utf-8"))["deployments"]
    except FileNotFoundError:
        raise InputError(f"{path.absolute()}: no such file; run this in the repository's root") from None
    return [
        RunnerDeployment.from_entrypoint(
            each["entrypoint"],
            name=each["name"],
            parameters=each["parameters"],
            description=each["description"],
            tags=each["tags"],
            schedules=[_schedule(given) for given in each["schedules"]] if each.get("schedules") else None,
        )
        for each in listed
    ]


def _schedule(given: dict[str, Any]) -> Schedule:
    """A schedule as prefect.yaml writes it: `cron`, `rrule` or `interval` (seconds), `timezone`, …"""
    try:
        if "interval" in given:
            given = {**given, "interval": timedelta(seconds=given["interval"])}
        return Schedule(**given)
    except (TypeError, ValueError) as error:
        raise InputError(f"prefect.yaml: the schedule {given} cannot be used: {first_line(error)}") from None


def api_url() -> str:
    """Prefect's API address from its settings. Raises InputError if there is none."""
    url = get_current_settings().api.url
    if url is None:
        raise InputError(
            "no Prefect API address is set; run this in the repository's root, or set PREFECT_API_URL"
        )
    return url.rstrip("/")


@contextmanager
def server(url: str) -> Iterator[None]:
    """Use the Prefect server that answers at `url`, or start one and stop it when the block ends.

    A server started here that is killed is started again: its state is in its database, and running flows
    wait for it.

    Raises InputError when something else has the port, when the address is another machine's and does not
    answer, and when the server does not start.
    """
    address = urlsplit(url)
    version = prefect_version(url)
    if version is not None:
        print(f"using the Prefect server {version} at {url}, which keeps running after this", flush=True)
        yield
        return
    if address.hostname not in LOOPBACK:
        raise InputError(f"no Prefect server answers at {url}; start it there, or unset PREFECT_API_URL")
    home = get_current_settings().home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    log = home / "server.log"
    print(f"starting a Prefect server at {url} (log: {log})", flush=True)
    command = [sys.executable, "-m", "prefect", "--no-prompt", "server", "start"]
    command += ["--host", str(address.hostname), "--port", str(address.port or 80)]
    log.unlink(missing_ok=True)

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            # In its own session, so that Ctrl-C reaches the runner first, which still reports to the server.
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    process = start()
    try:
        _wait_for(url, process, log)
        with _kept_running(process, start, url):
            yield
    finally:
        _stop(process)


@contextmanager
def _kept_running(
    process: subprocess.Popen[bytes], start: Callable[[], subprocess.Popen[bytes]], url: str
) -> Iterator[None]:
    """Start the server again whenever it ends, until the block ends; then stop it."""
    stopping = threading.Event()
    current = [process]

    def watch() -> None:
        while not stopping.is_set():
            began = time.monotonic()
            status = current[0].wait()
            if stopping.is_set():
                return
            if time.monotonic() - began < LIVES_SECONDS:
                print(f"the Prefect server ended again ({status}); it is not restarted", flush=True)
                return
            print(f"the Prefect server ended ({status}); starting it again at {url}", flush=True)
            current[0] = start()
            if stopping.is_set():  # set during the start
                _stop(current[0])

    watcher = threading.Thread(target=watch, name="server", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stopping.set()
        _stop(current[0])
        watcher.join(STOP_SECONDS)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def prefect_version(url: str) -> str | None:
    """The version of the Prefect server at `url`; None when nothing listens there.

    Raises InputError when what listens is not a Prefect server.
    """
    taken = InputError(
        f"{url}: that port is in use by something that is not a Prefect server; stop it, or choose another "
        "port for this and every later command: export PREFECT_API_URL=http://127.0.0.1:4300/api"
    )
    try:
        # Never through a proxy: the address is on this machine, or chosen by the user.
        answer = httpx.get(f"{url}/admin/version", timeout=10, trust_env=False)
        version: Any = answer.json() if answer.is_success else None
    except httpx.ConnectError:
        return None
    except (httpx.HTTPError, ValueError):
        raise taken from None
    if not isinstance(version, str):
        raise taken
    return version


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while prefect_version(url) is None:
        if process.poll() is not None:
            raise InputError(f"the Prefect server did not start; see the end of {log}")
        if time.monotonic() > deadline:
            raise InputError(
                f"the Prefect server did not answer within {START_SECONDS:.0f} seconds; see {log}"
            )
        time.sleep(0.2)


def _leave(signum: int, frame: Any) -> NoReturn:
    sys.exit(128 + signum)


if __name__ == "__main__":
    main()
