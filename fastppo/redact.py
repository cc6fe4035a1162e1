"""Secrets in commands and messages, taken out before they are kept, sent or shown in a report."""

import re
from typing import Any

HIDDEN = "***"

# a part of an option's or variable's name, between - _ and .
_PART = (
    r"(?:[a-z0-9]*(?:apikey|accesskey|secretkey|privatekey|token|secret|password|passwd|passphrase"
    r"|credentials?)|key|pass|pwd|pw|auth|authorization|bearer|cookie|jwt|pat|sig|signature)"
)
_NAME = rf"(?:[a-z0-9]+[-_.]+)*{_PART}(?:[-_.]+[a-z0-9]+)*"
# one word as a shell reads it; the next variable of a URL's query is not part of it
_WORD = r"""(?:"(?:\\.|[^"\\])*"|'[^']*'|\\.|(?!&\w+=)[^\s"'\\])+"""
_SCHEME = r"(?:(?:bearer|basic|digest|token)\s+)?"
_ASSIGNED = re.compile(
    # name=value, name: value, "name": "value", --name value
    rf"""(?<![\w.-])(_*{_NAME}["']?\s*(?:=|:(?!//))\s*|--?{_NAME}(?:\s*=\s*|\s+(?!-)))"""
    rf"{_SCHEME}{_WORD}",
    re.IGNORECASE,
)
_OPTION = re.compile(rf"--?{_NAME}", re.IGNORECASE)
_WHOLE = re.compile(rf"(-*_*{_NAME}\s*=).+", re.IGNORECASE | re.DOTALL)
_NAMED = re.compile(rf"_*{_NAME}", re.IGNORECASE)
_USER_OPTIONS = ("-u", "--user", "--proxy-user")
_USER = re.compile(rf"(?<![\w.-])((?:{'|'.join(_USER_OPTIONS)})[\s=]+[^\s:=]+:)\S+")
_URL = re.compile(r"([a-z][a-z0-9+.-]*://)[^\s/@]*(?:@[^\s/@]*)*@", re.IGNORECASE)
_SHAPES = re.compile(
    r"""
    -----BEGIN[ A-Z]*PRIVATE\ KEY-----.*?(?:-----END[ A-Z]*PRIVATE\ KEY-----|\Z)
    | (?<=Bearer\s)[\w.~+/=-]{8,} | (?<=bearer\s)[\w.~+/=-]{8,} | (?<=Basic\s)[\w+/=-]{8,}
    | (?<![A-Za-z0-9]) (?:
        wandb_v\d_\w{16,}
        | (?:local-)?(?:[0-9a-f]{86}|[0-9a-f]{40})     # W&B; a git revision looks the same
        | (?:AKIA|ASIA)[0-9A-Z]{16}                     # AWS
        | gh[pousr]_[A-Za-z0-9]{20,} | github_pat_\w{20,} | glpat-[\w-]{16,}
        | hf_[A-Za-z0-9]{20,} | sk-[\w-]{20,} | xox[a-z]-[\w-]{10,} | AIza[\w-]{30,}
        | pypi-[\w-]{16,} | npm_[A-Za-z0-9]{30,}
        | eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*               # JSON web token
    ) (?![A-Za-z0-9])
    """,
    re.DOTALL | re.VERBOSE,
)


def redact(value: Any) -> Any:
    """The value with what looks like a secret replaced by `***`; applied twice, it changes nothing.

    Args:
        value: text, a command as a list of words, or plain values as JSON has them. Git revisions
            under the key `sha` stay.
    """
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return {key: _field(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_word(value[i - 1], item) if i else redact(item) for i, item in enumerate(value)]
    return value


def _field(key: str, item: Any) -> Any:
    """A value of an object, whose key may say that it is secret."""
    if isinstance(item, str) and _NAMED.fullmatch(key):
        return HIDDEN
    return item if key == "sha" else redact(item)


def _word(before: Any, word: Any) -> Any:
    """A word of a command, which may be the value of the option before it."""
    if not (isinstance(before, str) and isinstance(word, str)):
        return redact(word)
    if _OPTION.fullmatch(before) and not word.startswith("--"):
        return HIDDEN
    if before in _USER_OPTIONS and ":" in word:
        return f"{word.partition(':')[0]}:{HIDDEN}"
    return _text(word)


def _text(text: str) -> str:
    if (whole := _WHOLE.fullmatch(text)) is not None:
        return whole[1] + HIDDEN  # a word of a command may hold blanks
    text = _URL.sub(rf"\1{HIDDEN}@", text)
    text = _USER.sub(rf"\1{HIDDEN}", text)
    text = _ASSIGNED.sub(rf"\1{HIDDEN}", text)
    return _SHAPES.sub(HIDDEN, text)
