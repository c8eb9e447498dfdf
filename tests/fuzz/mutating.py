"""Mutates bytes: what a fuzzer does to files that are whole."""

from random import Random

EDGES = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)
NUMBERS = (b"0", b"-1", b"4294967295", b"9223372036854775808", b"1e308", b"0.0")


def mutate(random: Random, seeds: list[bytes], words: tuple[bytes, ...]) -> bytes:
    """Return one of the seeds with a few changes, or two of them spliced."""
    content = bytearray(random.choice(seeds))
    if random.random() < 0.1:
        other = random.choice(seeds)
        content[random.randint(0, len(content)) :] = other[random.randint(0, len(other)) :]
    for _ in range(1 << random.randint(0, 4)):
        _change(random, content, words)
    return bytes(content)


def _change(random: Random, content: bytearray, words: tuple[bytes, ...]) -> None:
    place = random.randint(0, len(content))
    length = min(1 << random.randint(0, 8), len(content) - place)
    kind = random.randint(0, 8)
    if kind == 0:
        del content[place : place + length]
    elif kind == 1:
        content[place:place] = content[place : place + length] * random.choice((1, 2, 50))
    elif kind == 2:
        content[place:place] = random.choice(words or (b"\0",))
    elif kind == 3:
        del content[place:]
    elif kind == 4:
        content[place : place + length] = random.randbytes(length)
    elif kind == 5:
        content[place : place + 4] = random.choice((1, 1 << 16, 1 << 31, (1 << 32) - 1)).to_bytes(
            4, random.choice(("big", "little"))
        )
    elif kind == 6:
        digits = [index for index in range(len(content)) if 0x30 <= content[index] <= 0x39]
        if digits:
            content[(at := random.choice(digits)) : at + 1] = random.choice(NUMBERS)
    elif place < len(content):
        content[place] = random.choice(EDGES) if kind == 7 else content[place] ^ (1 << random.randint(0, 7))
