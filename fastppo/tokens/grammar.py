"""Text to learn from: sentences of a small grammar, the same for the same seed.

Of its own words, so that no foreign text ships. One letter in nine is an e, and every place in a
sentence has a word without one.
"""

import random

DETERMINERS = ("the", "the", "the", "this", "his", "our", "that", "one", "every", "any")
ADJECTIVES = ("old", "green", "silent", "small", "brave", "dark", "gentle", "cold", "little",
              "golden", "quick", "lonely", "warm", "strange", "bright", "tired")  # fmt: skip
NOUNS = ("king", "river", "forest", "child", "stone", "bird", "teacher", "garden", "wolf",
         "evening", "ship", "tower", "mountain", "horse", "friend", "dog")  # fmt: skip
VERBS = ("sees", "finds", "follows", "remembers", "builds", "loves", "carries", "hides", "wants",
         "leaves", "paints", "keeps", "visits", "calls", "meets", "guards")  # fmt: skip
ADVERBS = ("slowly", "never", "again", "quietly", "often", "there", "today", "here")
LINKS = ("and", "then", "but", "while", "when", "so")


def text(seed: int, sentences: int) -> str:
    """Sentences, a line each."""
    draw = random.Random(seed)
    return "".join(_sentence(draw) + "\n" for _ in range(sentences))


def _sentence(draw: random.Random) -> str:
    parts = [_clause(draw)]
    while draw.random() < 0.3:
        parts += [draw.choice(LINKS), _clause(draw)]
    return " ".join(parts) + "."


def _clause(draw: random.Random) -> str:
    words = [_noun(draw), draw.choice(VERBS), _noun(draw)]
    if draw.random() < 0.3:
        words.append(draw.choice(ADVERBS))
    return " ".join(words)


def _noun(draw: random.Random) -> str:
    adjective = [draw.choice(ADJECTIVES)] if draw.random() < 0.5 else []
    return " ".join([draw.choice(DETERMINERS), *adjective, draw.choice(NOUNS)])
