"""Elements with a script of our own: a turning cloud, a film of frames, a place for files, the map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicegui import ui

from data.show import visible_lines


class Cloud(ui.element, component="static/cloud.js"):
    """A turning point cloud; `src` gives its points (media kind `cloud`)."""

    def __init__(self, src: str, alt: str) -> None:
        super().__init__()
        self.props["src"] = src
        self.props["alt"] = visible_lines(alt)


class Frames(ui.element, component="static/frames.js"):
    """A film of `count` frames; `src` is one picture of all of them (media kind `frames`)."""

    def __init__(self, src: str, count: int, alt: str) -> None:
        super().__init__()
        self.props["src"] = src
        self.props["count"] = count
        self.props["alt"] = visible_lines(alt)


class Drop(ui.upload, component="static/drop.js"):
    """A place to drop one file on, or to choose one; takes what `ui.upload` takes."""


class PointMap(ui.element, component="static/map.js"):
    """A map of many points. `src` gives them (pipeline/ui/pages/space.py), `labels` names their colours.

    `on_pick` gets the number of the point that was clicked, `on_lasso` the numbers of those in a lasso.
    """

    def __init__(
        self,
        src: str,
        *,
        alt: str,
        on_pick: Callable[[int], Any],
        on_lasso: Callable[[list[int]], Any],
    ) -> None:
        super().__init__()
        self.props["src"] = src
        self.props["alt"] = visible_lines(alt)
        self.on("pick", lambda event: on_pick(int(event.args)))
        self.on("lasso", lambda event: on_lasso([int(each) for each in event.args]))

    def look(self, **looks: Any) -> None:
        """Change how the points are drawn: `colours` (of each value), `by` (which value), `hidden` values."""
        for name, value in looks.items():
            self.props[name] = value
        self.update()
