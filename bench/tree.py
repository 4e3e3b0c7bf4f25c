"""A seeded tree of files that look like a game project's content: the same for the same seed."""

import math
import random
from array import array
from pathlib import Path

KINDS = ("png", "uasset", "fbx", "tga", "json", "ogg")
BLOCK_BYTES = 256 << 10
BLOCKS_PER_KIND = 16


def make_tree(root: Path, seed: int, files: int, big_files: int, big_bytes: int) -> None:
    """`files` of log-normal size around 160 KiB in six kinds, and `big_files` of `big_bytes` each."""
    content, rng = Content(seed), random.Random(seed)
    for number in range(files):
        kind = KINDS[number % len(KINDS)]
        size_bytes = int(min(max(rng.lognormvariate(12, 1), 2048), 8 << 20))
        content.write(root / "Content" / f"d{number % 40:02d}" / f"a{number:05d}.{kind}", kind, size_bytes, rng)
    for number in range(big_files):
        kind = ("uasset", "png", "tga", "fbx")[number % 4]
        content.write(root / "Big" / f"b{number}.{kind}", kind, big_bytes, rng)


def change_some(root: Path, seed: int, fraction: float) -> int:
    """Rewrite that fraction of the small files in place. Returns how many."""
    content, rng = Content(seed), random.Random(f"{seed} change")
    paths = sorted((root / "Content").rglob("*.*"))
    chosen = rng.sample(paths, max(1, round(len(paths) * fraction)))
    for path in chosen:
        content.write(path, path.suffix[1:], path.stat().st_size, rng)
    return len(chosen)


class Content:
    """Endless bytes with the statistics of each kind; no two files are alike."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        self._blocks = {kind: [_block(kind, rng) for _ in range(BLOCKS_PER_KIND)] for kind in KINDS}
        self._rotations = [bytes((byte + shift) & 255 for byte in range(256)) for shift in range(256)]

    def write(self, path: Path, kind: str, size_bytes: int, rng: random.Random) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(rng.randbytes(min(32, size_bytes)))
            left = size_bytes - 32
            while left > 0:
                piece = self._piece(kind, rng)[:left]
                file.write(piece)
                left -= len(piece)

    def _piece(self, kind: str, rng: random.Random) -> bytes:
        if kind in ("png", "ogg"):
            return rng.randbytes(BLOCK_BYTES)
        block = rng.choice(self._blocks[kind])[rng.randrange(BLOCK_BYTES // 2) :]
        return block.translate(rng.choice(self._rotations))


def _block(kind: str, rng: random.Random) -> bytes:
    if kind in ("png", "ogg"):
        return rng.randbytes(BLOCK_BYTES)
    if kind == "uasset":  # packed float32 curves
        value, curve = 0.0, array("f")
        for _ in range(BLOCK_BYTES // 4):
            value += rng.gauss(0, 0.01)
            curve.append(value)
        return curve.tobytes()
    if kind == "fbx":  # int32 coordinates, a third of them zero
        return array("i", (0 if n % 3 == 0 else int(rng.gauss(0, 1000)) for n in range(BLOCK_BYTES // 4))).tobytes()
    if kind == "tga":  # smooth 8-bit RGBA with a little noise
        phase = rng.random() * 6
        return bytes(
            int(100 * math.sin(n / 900 + phase + n % 4) + 126 + rng.randrange(3)) & 255 for n in range(BLOCK_BYTES)
        )
    words = " ".join(f'"k{n}":{n * 7}' for n in (rng.randrange(99999) for _ in range(BLOCK_BYTES // 12)))
    return words.encode()[:BLOCK_BYTES].ljust(BLOCK_BYTES)
