"""Progress artifacts: made once per flow run and step, renewed, complete at the end."""

from __future__ import annotations

from typing import Any

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

from data.progress import Step, steps_watched
from flows import progress
from flows.progress import progress_shown


@pytest.mark.usefixtures("served")
def test_shards_share_one_artifact_that_is_full_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tasks of two shards; a step that needs fewer units than were planned is complete too."""
    seen: list[tuple[float, str]] = []
    tell = progress._Shown._send

    def noted(self: Any, client: Any, key: str, percent: float, text: str) -> None:
        seen.append((percent, text))
        tell(self, client, key, percent, text)

    monkeypatch.setattr(progress._Shown, "_send", noted)

    @task
    def shard(number: int) -> None:
        with progress_shown("p-describe", part=number, parts=2):
            step = Step("texts <b>", total=10)
            step.add(4)
            step.say("3 requests, $0.01 spent")

    @flow
    def both() -> None:
        shard(0)
        shard(1)

    state = both(return_state=True)
    (made,) = _artifacts(state.state_details.flow_run_id)
    assert (made.key, made.type, made.data) == ("progress-p-describe-texts-b", "progress", 100.0)
    assert [percent for percent, _ in seen] == [50.0, 100.0]
    assert made.description == (r"texts \<b\>, shard 2 of 2, 4 of 10: 3 requests, \$0.01 spent")


@pytest.mark.usefixtures("served")
def test_it_is_renewed_while_the_step_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at the end alone; and an error leaves it where the step stood."""
    monkeypatch.setattr(progress, "EVERY_S", 0.05)

    @flow
    def half() -> None:
        with progress_shown("p-encode"):
            step = Step("texts", total=2)
            step.add(1)
            while not progress._made:
                pass
            raise ZeroDivisionError

    monkeypatch.setattr(progress, "_made", {})
    state = half(return_state=True)
    assert state.is_failed()
    (made,) = _artifacts(state.state_details.flow_run_id)
    assert made.data == 50.0


@pytest.mark.usefixtures("served")
def test_a_server_that_fails_stops_no_work(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says once that progress is not shown."""
    monkeypatch.setattr(progress, "EVERY_S", 0.01)
    tries: list[float] = []

    def fail(self: Any, client: Any, key: str, percent: float, text: str) -> None:
        tries.append(percent)
        raise ConnectionError

    monkeypatch.setattr(progress._Shown, "_send", fail)

    @flow
    def whole() -> int:
        with progress_shown("p"):
            step = Step("texts", total=100)
            while len(tries) < 3:
                step.add(1)
        return 1

    assert whole() == 1
    assert caplog.text.count("progress is not shown: ConnectionError") == 1


def test_outside_a_flow_run_nobody_watches() -> None:
    """The stages run as from the command line."""
    with progress_shown("p"):
        assert not Step("texts", total=1).watched
    with steps_watched(lambda now: None):
        assert Step("texts", total=1).watched


def _artifacts(flow_run: Any) -> list[Any]:
    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run]))
    with get_client(sync_client=True) as client:
        made = client.read_artifacts(artifact_filter=wanted)
    return [each for each in made if each.key is not None]  # without one: what Prefect keeps of an error
