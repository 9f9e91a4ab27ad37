"""The key in every form in which a server may quote it."""

from __future__ import annotations

import base64
import html
import json
import logging
import os
import subprocess
import sys
from urllib.parse import quote

import pytest

from kb_builder.ask.endpoint.hidden_key import HiddenKey, silence_vendor

KEY = "sk-planted/0123+456789_ABCdef"


def coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "form",
    [
        KEY,
        KEY.upper(),
        json.dumps(KEY),
        json.dumps(KEY).replace("/", "\\/"),
        "".join(f"\\u{ord(letter):04x}" for letter in KEY),
        "".join(f"\\\\u{ord(letter):04X}" for letter in KEY),
        quote(KEY, safe=""),
        quote(KEY, safe="").lower(),
        "".join(f"%{ord(letter):02X}" for letter in KEY),
        coded(KEY),
        coded(f"user:{KEY}"),
        coded(f"Bearer {KEY}"),
        coded(f"api-key: {KEY}\n"),
        base64.urlsafe_b64encode(KEY.encode()).decode(),
        KEY.encode().hex(),
        "".join(f"&#{ord(letter)};" for letter in KEY),
        html.escape(KEY),
    ],
)
def test_the_whole_key_is_hidden(form: str) -> None:
    """In whatever form: of its second half, no eight characters in a row stay."""
    hidden = HiddenKey(KEY).hide(f"Incorrect key provided: {form}. See our page.")
    assert hidden.startswith("Incorrect key provided: ") and hidden.endswith(". See our page.")
    assert "***" in hidden
    assert not any(form[at : at + 8] in hidden for at in range(len(form) // 2, len(form) - 7))


@pytest.mark.parametrize(
    ("said", "hidden"),
    [
        ("provided: sk-pl*****************def.", "provided: ***."),
        ("provided: ****************Cdef", "provided: ***"),
        ("provided: sk-p...Cdef", "provided: ***"),
        ("provided: …ABCdef!", "provided: ***!"),
        ("the key ending in Cdef is revoked", "the key ending in *** is revoked"),
        ("last four characters: Cdef", "last four characters: ***"),
        ('your key starting with "sk-plant"', 'your key starting with "***"'),
        ("sk-planted/0123 is no key", "*** is no key"),
        ("456789_ABCdef is no key", "*** is no key"),
        ("it holds /0123+456789_AB somewhere", "it holds *** somewhere"),
    ],
)
def test_a_shortened_key_is_hidden(said: str, hidden: str) -> None:
    """Its first and last characters, as servers show them, and any long piece of it."""
    assert HiddenKey(KEY).hide(said) == hidden


@pytest.mark.parametrize(
    "text",
    [
        "A plain text ... with dots, and *** stars.",
        "The dog ends with def tail; the last four legs; sk- is a beginning.",
        "",
        "x" * 5000,
        "İstanbul ﬁn…",
    ],
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    """An answer is not changed where nothing of the key is in it."""
    assert HiddenKey(KEY).hide(text) == text


def test_short_keys_are_words() -> None:
    """`none`, which is sent where no key is set, is no secret; of a short key only the whole is hidden."""
    assert HiddenKey("none").hide("none of it") == "none of it"
    assert HiddenKey("password").hide("the password passes") == "the *** passes"


def test_the_vendors_log_is_overruled() -> None:
    """`OPENAI_LOG=debug` prints neither prompts nor headers, in a process of its own as in this one."""
    code = (
        "from kb_builder.ask.endpoint.hidden_key import silence_vendor; silence_vendor()\n"
        "import openai, logging, os\n"
        "logging.getLogger('openai._base_client').debug('PLANTED'); print(os.environ.get('OPENAI_LOG'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"OPENAI_LOG": "debug"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "None"
    assert "PLANTED" not in done.stderr and "OPENAI_LOG is ignored" in done.stderr
    silence_vendor()
    assert not logging.getLogger("openai._base_client").isEnabledFor(logging.DEBUG)
