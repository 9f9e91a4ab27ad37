"""The card of a sample: its picture or its words, and a line or two about it."""

from __future__ import annotations

from pipeline.ui.frame import PageView, Words, box, picture


def sample_card(
    view: PageView,
    sample_id: str,
    modality: str,
    name: str,
    value: str,
    *,
    text: str | None = None,
    state: str = "",
    note: str = "",
    target: str | None = None,
) -> None:
    """A card that leads to the sample's page, or to `target`.

    `text` is what a text sample says. `state` is "right", "wrong" or nothing; `note` a second line.
    """
    where = target if target is not None else view.to("/sample", id=sample_id)
    with box("a", f"card {state}", href=where, title=sample_id):
        if modality == "text":
            Words(text if text is not None else "…", "span", "said")
        else:
            picture(view.media("thumb", sample=sample_id), f"{modality} sample {sample_id}, {name}")
        with box("span", "about"):
            Words(name, "span", "name")
            with box("span", "sub"):
                Words(note or modality)
                if value:
                    Words(value, "span", "value")
