"""The code that has to stay fast."""


def smooth(values: list[float], width: int) -> list[float]:
    """Mean of every `width` neighbours; each is one sum away from the one before."""
    total = sum(values[:width])
    means = [total / width]
    for i in range(width, len(values)):
        total += values[i] - values[i - width]
        means.append(total / width)
    return means
