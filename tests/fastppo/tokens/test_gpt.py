"""The GPT: reading token by token equals reading at once, and padding changes nothing."""

import pytest
import torch
from torch import Tensor

from fastppo.tokens.gpt import GPT
from fastppo.tokens.model import LanguageModel
from fastppo.tokens.sample import lay_out, sample

VOCABULARY = 11
STEPS = 5


def make_gpt() -> GPT:
    torch.manual_seed(0)
    model = GPT(VOCABULARY, layers=2, width=16, heads=2, context=16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9], [10, 1]]


def read_slowly(model: LanguageModel, side: str, tokens: Tensor) -> Tensor:
    """Logits of every response token [B, T, V], by way of the cache."""
    rows = lay_out(PROMPTS, STEPS, side, torch.device("cpu"))
    columns = rows.columns(STEPS)
    logits, cache = model.open(*rows)
    found = [logits]
    for t in range(STEPS - 1):
        found.append(model.step(tokens[:, t], columns[:, t], rows.start, cache))
    return torch.stack(found, 1)


@pytest.mark.parametrize("side", ["left", "right"])
def test_reading_by_way_of_the_cache_equals_reading_at_once(side: str) -> None:
    model = make_gpt()
    tokens = torch.randint(VOCABULARY, (len(PROMPTS), STEPS))
    rows = lay_out(PROMPTS, STEPS, side, torch.device("cpu"))
    columns = rows.columns(STEPS)
    rows.tokens[torch.arange(len(PROMPTS))[:, None], columns] = tokens

    with torch.no_grad():
        whole, _ = model(rows.read, rows.start, columns - 1)
        slowly = read_slowly(model, side, tokens)

    torch.testing.assert_close(slowly, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_row_among_others_is_as_if_it_were_alone(side: str) -> None:
    model = make_gpt()
    tokens = torch.randint(VOCABULARY, (len(PROMPTS), STEPS))
    rows = lay_out(PROMPTS, STEPS, side, torch.device("cpu"))
    columns = rows.columns(STEPS)
    rows.tokens[torch.arange(len(PROMPTS))[:, None], columns] = tokens

    with torch.no_grad():
        logits, values = model(rows.read, rows.start, columns - 1)
        for row, prompt in enumerate(PROMPTS):
            alone = torch.tensor([[*prompt, *tokens[row].tolist()]])
            places = torch.arange(len(prompt) - 1, len(prompt) + STEPS - 1)[None]
            its_logits, its_values = model(alone[:, :-1], torch.zeros(1).long(), places)
            torch.testing.assert_close(logits[row], its_logits[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(values[row], its_values[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_what_stands_in_the_padding_changes_no_bit(side: str) -> None:
    model = make_gpt()
    rows = lay_out(PROMPTS, STEPS, side, torch.device("cpu"))
    places = rows.columns(STEPS)[:, :1] - 1  # behind it is room, which nothing before it sees
    column = torch.arange(rows.tokens.shape[1])
    padding = (column < rows.start[:, None]) | (column >= rows.first[:, None])
    assert padding.sum() > 2 * STEPS
    other = torch.where(padding, VOCABULARY - 1 - rows.tokens, rows.tokens)

    with torch.no_grad():
        logits, values = model(rows.read, rows.start, places)
        again, values_again = model(other[:, :-1], rows.start, places)

    assert torch.equal(logits, again)
    assert torch.equal(values, values_again)


def drawn(prompts: list[list[int]], side: str, *, end: int | None = None, first_step: int = 0):  # type: ignore[no-untyped-def]
    rows = lay_out(prompts, STEPS, side, torch.device("cpu"))
    options = dict(key=7, first_step=first_step, temperature=1.0, end=end, backend="auto")
    return rows, sample(make_gpt(), rows, STEPS, **options)  # type: ignore[arg-type]


def test_draws_do_not_depend_on_the_side_of_the_padding() -> None:
    _, left = drawn(PROMPTS, "left")
    rows, right = drawn(PROMPTS, "right")

    assert torch.equal(left.tokens, right.tokens)
    assert left.valid.all()
    for row, prompt in enumerate(PROMPTS):  # and stand where they are said to stand
        kept = rows.tokens[row, : len(prompt) + STEPS].tolist()
        assert kept == [*prompt, *right.tokens[row].tolist()]


def test_a_draw_is_keyed_by_sequence_and_step() -> None:
    _, whole = drawn(PROMPTS, "left")
    _, first = drawn(PROMPTS[:2], "left")
    _, later = drawn(PROMPTS, "left", first_step=STEPS)

    assert torch.equal(whole.tokens[:2], first.tokens)
    assert not torch.equal(whole.tokens, later.tokens)


def test_a_response_ends_with_its_end_token() -> None:
    _, whole = drawn(PROMPTS, "left")
    end = int(whole.tokens[0, 1])

    _, ended = drawn(PROMPTS, "left", end=end)

    assert ended.valid[0].tolist() == [True, True, False, False, False]
    for tokens, same, valid in zip(whole.tokens, ended.tokens, ended.valid, strict=True):
        ends = [*(tokens == end).nonzero().flatten().tolist(), STEPS - 1]
        assert int(valid.sum()) == ends[0] + 1
        assert torch.equal(tokens[valid], same[valid])


def test_a_temperature_near_zero_draws_the_most_likely_token() -> None:
    model = make_gpt()
    rows = lay_out(PROMPTS, STEPS, "left", torch.device("cpu"))
    with torch.no_grad():
        logits, _ = model.open(*rows)

    cold = sample(model, rows, 1, key=3, first_step=0, temperature=1e-4, end=None, backend="auto")

    assert torch.equal(cold.tokens[:, 0], logits.argmax(1))
