"""A tiny Hugging Face model, randomly initialised and saved here, in the place of the GPT."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from token_runs import TINY

from fastppo.tokens import hugging_face
from fastppo.tokens.sample import lay_out

transformers: Any = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

CHARACTERS = "abcdefgh>. tn"
FLAGS = {
    name: value
    for name, value in TINY.items()
    if name not in ("env_id", "layers", "width", "heads", "context", "pretrain_steps")
}
WORDS = [w for n, v in FLAGS.items() for w in (f"--{n.replace('_', '-')}", str(v))]


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 15 tokens and its tokenizer, a token a character."""
    import tokenizers

    path = tmp_path_factory.mktemp(request.param)
    known = {"<end>": 0, "<unknown>": 1} | {c: i + 2 for i, c in enumerate(CHARACTERS)}
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(known, unk_token="<unknown>"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    raw.decoder = tokenizers.decoders.Fuse()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<end>", unk_token="<unknown>"
    )
    fast.save_pretrained(path)
    torch.manual_seed(0)
    if request.param == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=len(known), n_embd=16, n_layer=2, n_head=2, n_positions=32
        )
        model = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.LlamaConfig(
            vocab_size=len(known), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=32,
        )  # fmt: skip
        model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(path)
    return path


def test_reading_by_way_of_the_cache_equals_reading_at_once(folder: Path) -> None:
    model, _ = hugging_face.load(str(folder))
    prompts, steps = [[2, 3, 4], [5], [6, 7]], 4
    tokens = torch.randint(2, 15, (3, steps))
    rows = lay_out(prompts, steps, "left", torch.device("cpu"))
    columns = rows.columns(steps)
    rows.tokens[torch.arange(3)[:, None], columns] = tokens

    with torch.no_grad():
        whole, values = model(rows.read, rows.start, columns - 1)
        logits, cache = model.open(*rows)
        slowly = [logits]
        for t in range(steps - 1):
            slowly.append(model.step(tokens[:, t], columns[:, t], rows.start, cache))
        alone = torch.tensor([[*prompts[1], *tokens[1].tolist()]])
        its, _ = model(alone[:, :-1], torch.zeros(1).long(), torch.arange(steps)[None])

    torch.testing.assert_close(torch.stack(slowly, 1), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(whole[1], its[0], rtol=1e-4, atol=1e-5)
    assert values.shape == (3, steps)


def test_a_run_with_it_and_going_on(
    folder: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    run = tmp_path / "run"
    words = [*WORDS, "--model", folder, "--run-dir", run, "--quiet"]
    outcome = command("tokens", "reverse", *words)
    assert outcome.code == 0, outcome.err
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss/ref_kl"] == 0.0
    assert rows[-1]["loss/ref_kl"] != 0.0
    (run / "checkpoints" / "00000006.pt").unlink()

    assert command("tokens", "--resume", run, "--quiet").code == 0

    again = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert again[-1]["loss/loss"] == rows[-1]["loss/loss"]


@pytest.mark.parametrize("task", ["bandit", "lipogram"])
def test_the_other_tasks(
    task: str, folder: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    one = ["--num-steps", 1, "--total-timesteps", 48, "--kl-coef", 0.5] if task == "bandit" else []
    words = [*WORDS, *one, "--model", folder, "--run-dir", tmp_path / "run", "--quiet"]

    outcome = command("tokens", task, *words)

    assert outcome.code == 0, outcome.err


def test_a_text_becomes_tokens_and_text_again(folder: Path) -> None:
    _, tokenizer = hugging_face.load(str(folder))

    tokens = tokenizer.encode("abc>")
    assert tokens == [2, 3, 4, 10]
    assert tokenizer.decode([*tokens, tokenizer.end]) == "abc>\n"
    assert tokenizer.encode("\n") == [tokenizer.end]


def test_a_folder_that_is_no_causal_model_is_one_line(
    folder: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    def said(path: Path, *more: object) -> str:
        outcome = command("tokens", "reverse", *WORDS, "--model", path, *more)
        assert outcome.code == 2
        assert outcome.err.count("\n") == 1, outcome.err
        return str(outcome.err)

    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no model (no config.json); name its folder" in said(empty)
    (empty / "config.json").write_text("{}")
    assert "holds no causal model and tokenizer (" in said(empty)
    (empty / "config.json").write_text("not json")
    assert "holds no causal model and tokenizer (" in said(empty)
    assert "holds no model" in said(tmp_path / "nowhere")
    long = ["--num-steps", 30, "--total-timesteps", 4800]
    assert "do not fit into the model's context of 32" in said(folder, *long)
    text = tmp_path / "text"
    text.write_text("a")
    assert "is for the GPT; leave it or model out" in said(folder, "--padding", "right")
    outcome = command("tokens", "lipogram", *WORDS, "--model", folder, "--text", text)
    assert "is for the GPT; leave it or model out" in outcome.err
