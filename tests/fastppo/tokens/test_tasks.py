"""Prompts, scores and measures of the three tasks, by hand."""

import pytest
import torch

from fastppo.errors import UserError
from fastppo.tokens import grammar
from fastppo.tokens.tasks import Bandit, Lipogram, Reverse
from fastppo.tokens.vocabulary import Characters

NONE = torch.zeros(1, 1, dtype=torch.int64)


@pytest.mark.parametrize(
    ("prompt", "response", "score"),
    [
        ("abcd>", "dcba\n", 1.0),
        ("abcd>", "dcba", 0.8),  # never ended
        ("abcd>", "dcbaa", 0.8),
        ("abcd>", "dca\n", 0.4),
        ("abcd>", "abcd\n", 0.0),
        ("a>", "a\n", 1.0),
        ("a>", "\n", 0.0),
        ("aa>", "aa\n", 1.0),
        ("ab>", "", 0.0),
    ],
)
def test_the_reverse_is_right_up_to_the_first_mistake(
    prompt: str, response: str, score: float
) -> None:
    task = Reverse(1)

    scores = task.scores([prompt], [response], NONE)
    assert scores.tolist() == pytest.approx([score])
    assert task.measures([response], scores)["exact_match"] == float(score == 1.0)


def test_words_to_reverse_are_keyed_and_of_every_length() -> None:
    task, other = Reverse(1), Reverse(2)
    prompts = [task.prompt(number) for number in range(200)]

    assert prompts == [Reverse(1).prompt(number) for number in range(200)]
    assert prompts != [other.prompt(number) for number in range(200)]
    assert {len(prompt) for prompt in prompts} == {2, 3, 4, 5, 6}


def test_the_text_for_reversing_has_the_form_and_not_the_answer() -> None:
    lines = [line.split(">") for line in Reverse(1).text().splitlines()]

    assert all(sorted(word) == sorted(answer) for word, answer in lines)
    long = [pair for pair in lines if len(pair[0]) == 5]
    right = sum(word[::-1] == answer for word, answer in long) / len(long)
    assert right < 0.05  # of 120 orders one, and more where letters repeat


def test_a_bandits_optimum_is_the_policy_of_the_largest_objective() -> None:
    """E[r] - beta KL(pi, pi_ref) at the optimum is beta log Z, and less everywhere else."""
    task = Bandit(3, 6)
    beta, reference = 0.4, torch.randn(6).double().log_softmax(0)
    rewards = task.rewards.double()

    def objective(log_probs: torch.Tensor) -> float:
        gain = rewards - beta * (log_probs - reference)
        return float((log_probs.exp() * gain).sum())

    best = (reference + rewards / beta).log_softmax(0)
    highest = float(beta * (reference + rewards / beta).logsumexp(0))

    assert task.distance(best, reference, beta) < 1e-6
    assert objective(best) == pytest.approx(highest)
    for _ in range(20):
        other = (best + 0.3 * torch.randn(6)).log_softmax(0)
        assert objective(other) < highest
        wanted = 0.5 * (other.exp() - best.exp()).abs().sum()
        assert task.distance(other, reference, beta) == pytest.approx(float(wanted), abs=1e-6)


def test_a_bandits_token_has_its_own_reward() -> None:
    task = Bandit(1, 5)

    scores = task.scores(["\n"] * 3, ["x"] * 3, torch.tensor([[4], [0], [4]]))

    assert torch.equal(scores, task.rewards[[4, 0, 4]])
    assert task.rewards.abs().max() <= 1.0


def test_a_lipogram_loses_one_for_each_e() -> None:
    task = Lipogram(1, "a text of no use here")

    scores = task.scores(["", ""], ["the Ever e", "a dog"], NONE)

    assert scores.tolist() == [-4.0, 0.0]
    assert task.measures(["the Ever e", "a dog"], scores)["e_rate"] == pytest.approx(4 / 15)


def test_prompts_of_a_lipogram_are_parts_of_its_text() -> None:
    text = "some text that is long enough"
    task = Lipogram(1, text)
    prompts = [task.prompt(number) for number in range(50)]

    assert all(prompt in text and len(prompt) == 16 for prompt in prompts)
    assert len(set(prompts)) > 5


def test_the_grammar_is_the_same_for_the_same_seed_and_full_of_e() -> None:
    text = grammar.text(1, 2000)

    assert text == grammar.text(1, 2000) != grammar.text(2, 2000)
    assert 0.09 < text.count("e") / len(text) < 0.15
    words = {word.strip(".") for word in text.split()}
    for kind in (grammar.DETERMINERS, grammar.ADJECTIVES, grammar.NOUNS, grammar.VERBS,
                 grammar.ADVERBS, grammar.LINKS):  # fmt: skip
        assert words >= set(kind)
        assert any("e" not in word for word in kind)


def test_characters_there_and_back() -> None:
    characters = Characters("hello")

    assert characters.decode(characters.encode("hole\n")) == "hole\n"
    assert len(characters) == 5
    assert characters.decode([characters.end]) == "\n"
    with pytest.raises(UserError, match="text: has no 'z', which the task needs; name another"):
        characters.encode("zoo")
