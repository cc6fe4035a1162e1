"""Issue 10, 19: no secret is kept, sent or shown."""

import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastppo.redact import redact

SECRET = "S3cr3t-Qx7"
COMMANDS = [
    "--token={}", "--token {}", "--api-key {}", "--api-key={}", "--apikey={}", "-token {}",
    "--wandb-api-key '{}'", '--hf_token="{}"', "--accessToken {}", "--db.password={}",
    "WANDB_API_KEY={} python x.py", "env AWS_SECRET_ACCESS_KEY={} python x.py", "HF_TOKEN='{}' run",
    "python x.py https://user:{}@host/repo", "git+https://{}@github.com/a/b",
    "curl -H 'Authorization: Bearer {}'", "curl -H 'Authorization: {}'", "-H 'X-Api-Key: {}'",
    "curl -u me:{} https://host", "curl 'https://host/?a=1&token={}&b=2'", "--auth={}", "--pwd {}",
    "--config '{{\"api_key\": \"{}\"}}'", "--passphrase={}", "postgres://u:{}@db/x", "--key={}",
    "_SECRET={} x", "--client-secret {}", "--session-cookie={}",
]  # fmt: skip
SHAPES = [
    "0123456789abcdef" * 2 + "01234567", "a1" * 43, "local-" + "0a" * 20, "wandb_v1_" + "aB3_" * 19,
    "AKIA" + "Z7" * 8, "ghp_" + "a1B2" * 9, "github_pat_" + "a1_B" * 20, "hf_" + "aBcD" * 8,
    "sk-proj-" + "a1-B" * 8, "glpat-" + "x1" * 10, "xoxb-" + "12-ab" * 4,
    "eyJ" + "a1" * 8 + "." + "b2" * 8 + "." + "c3" * 8,
]  # fmt: skip
HARMLESS = [
    "fastppo bench train Pong-v5 --impl fastppo,reference --num-envs 8 --json out.json",
    "x=python -m mine --max-tokens 128 --num-tokens=5 --monkey 3 --keyboard us --passes 2",
    "https://host/path?x=1 at 12:30", "train/Pong-v5/8x128", "module:function", "a@b.c",
    "worker died (exit code 1): ValueError: key 'x' is missing", "2026-11-26T19:43:30+00:00",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "4daad55",
    "environment steps/s: 3,400", "rollout only; update only",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_no_secret_of_a_command_is_kept(command: str) -> None:
    text = command.format(SECRET)
    for value in (f"x=python mine.py {text}", shlex.split(text), f"died: usage: {text}, again",
                  ["fastppo", "bench", "train", "--impl", f"x=python mine.py {text}"]):  # fmt: skip
        hidden = redact(value)

        assert SECRET not in str(hidden)
        assert "***" in str(hidden)
        assert redact(hidden) == hidden


@pytest.mark.parametrize("secret", SHAPES)
def test_what_has_the_shape_of_a_key_is_hidden_wherever_it_stands(secret: str) -> None:
    for value in (secret, f"failed with {secret}.", [secret], {"notes": f"({secret})"}):
        assert secret not in str(redact(value))


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text
    assert redact(text.split()) == text.split()


def test_a_secret_with_blanks_or_quotes_goes_whole() -> None:
    assert redact(["run", "--password=two words"]) == ["run", "--password=***"]
    assert redact(["run", "--password", "-two words"]) == ["run", "--password", "***"]
    assert redact(["run", "--token", "--verbose"]) == ["run", "--token", "--verbose"]
    assert redact("x=run --password 'two words' --seed 1") == "x=run --password *** --seed 1"
    assert redact("x=run --password=a&b,c;d --seed 1") == "x=run --password=*** --seed 1"


def test_values_under_secret_names_go_and_git_revisions_stay() -> None:
    sha = "0a" * 20
    record: dict[str, Any] = {"code": {"sha": sha, "dirty": False}, "info": {"api_key": "x"}}

    assert redact(record) == {"code": {"sha": sha, "dirty": False}, "info": {"api_key": "***"}}


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists))
def test_redacting_twice_is_redacting_once(value: object) -> None:
    once = redact(value)

    assert redact(once) == once
