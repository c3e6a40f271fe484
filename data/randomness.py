"""Random numbers that are a function of their address, not of a state.

Every decision about a training image is read from `uniforms(stream, seed, epoch, index)`: asking
twice, in another order, in another process or after a restart gives the same number. The generator
is splitmix64's finaliser (Steele, Lea and Flood, OOPSLA 2014) applied to each word of the address
in turn, on whole arrays at once.
"""

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: splitmix64's increment
_MASK = (1 << 64) - 1

# One stream per kind of decision, so that adding a draw to one never moves the draws of another.
ORDER, SAMPLE, MIX, NOISE = range(4)


def _scramble(word: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


def key(stream: int, seed: int, epoch: int) -> int:
    """One 64-bit key for a stream of decisions in an epoch of a run; any integers are accepted as
    seed and epoch."""
    word = np.zeros(1, dtype=np.uint64)
    for part in (stream, seed, epoch):
        word = _scramble((word ^ np.uint64(part & _MASK)) + _GOLDEN)
    return int(word[0])


def uniforms(stream: int, seed: int, epoch: int, indices: npt.ArrayLike, count: int) -> Floats:
    """Independent uniforms in [0, 1), shape (len(indices), count); row i depends on indices[i]
    alone."""
    rows = np.asarray(indices).astype(np.uint64)
    rows = _scramble((rows + np.uint64(1)) * _GOLDEN ^ np.uint64(key(stream, seed, epoch)))
    columns = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
    return (_scramble(rows[:, None] + columns) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def generator(stream: int, seed: int, epoch: int, index: int = 0) -> np.random.Generator:
    """A numpy generator at such an address, for the draws that need one (a permutation, a beta
    variate)."""
    return np.random.Generator(np.random.Philox(key=(key(stream, seed, epoch), index)))


def normals(first: Floats, second: Floats) -> Floats:
    """Standard normals from two arrays of uniforms (Box and Muller 1958)."""
    return np.sqrt(-2.0 * np.log1p(-first)) * np.cos(2.0 * np.pi * second)
