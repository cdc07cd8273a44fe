"""How work is cut for the kernels: by sizes alone, so that results do not depend on the GPU."""

from __future__ import annotations

from dataclasses import dataclass

from schuss.backends.protocol import TILE_ROWS

__all__ = [
    "BLOCK_THREADS",
    "CHUNK_NUMBERS",
    "COLUMNS_OF_BLOCK",
    "MOST_PARTS",
    "PACK_BYTES",
    "TILE_SIDE",
    "Cut",
    "Held",
    "blocks_for",
    "held",
    "room",
]

# As in csrc/cuda: threads of a block, numbers of an array that one block works on, bytes that a
# thread reads at once, rows and columns of a tile of a product.
BLOCK_THREADS = 256
CHUNK_NUMBERS = 1 << 14
PACK_BYTES = 16
TILE_SIDE = 64
# Columns that a block adds up at once (csrc/cuda/columns.cuh).
COLUMNS_OF_BLOCK = 32
# A batch is cut into as many parts where it has the rows for it: twice the multiprocessors of a
# large GPU.
MOST_PARTS = 264
# Dynamic shared memory that a block is given: every device allows 48 KiB, of which kernels take up
# to 3 KiB for variables of their own.
SHARED_BYTES = 45 << 10


@dataclass(frozen=True)
class Held:
    """How a row is held: by so many lanes with so many packs each; 0 packs: not in registers."""

    lanes: int
    packs: int

    @property
    def teams(self) -> int:
        """Teams of a block."""
        return BLOCK_THREADS // self.lanes


# In the order in which they are tried.
# Few packs before few lanes: a small batch is then shared among more blocks.
SHAPES = (
    *(Held(8, packs) for packs in (1, 2)),
    *(Held(lanes, packs) for lanes in (32, 256) for packs in (1, 2, 4, 8)),
)
LONG_ROWS = Held(BLOCK_THREADS, 0)


def held(width: int, stored: int, computed: int) -> Held:
    """The smallest shape that holds rows of ``width`` numbers.

    Parameters
    ----------
    width : int
        Numbers of a row; whole packs.
    stored, computed : int
        Bytes of a number in memory, and of the type that is computed with.
    """
    packs = width * stored // PACK_BYTES
    for shape in SHAPES:
        if shape.lanes * shape.packs >= packs and room(shape, width, computed) <= SHARED_BYTES:
            return shape
    return LONG_ROWS


def room(shape: Held, width: int, computed: int) -> int:
    """Bytes of shared memory in which a block's teams put their sums together."""
    return 0 if shape.teams == 1 else shape.teams * (width + 1) * computed


@dataclass(frozen=True)
class Cut:
    """A batch in parts, of which a block takes one: tiles one after the other.

    Attributes
    ----------
    rows_of_tile : int
        Rows of a team in a tile, whose sums are made in the data's dtype: at most TILE_ROWS.
    tiles_of_part : int
    teams : int
        Of a block.
    """

    rows_of_tile: int
    tiles_of_part: int
    teams: int

    @classmethod
    def of(cls, count: int, teams: int) -> Cut:
        """For batches of up to ``count`` rows."""
        rows = min(TILE_ROWS, max(1, -(-count // (MOST_PARTS * teams))))
        return cls(rows, max(1, -(-count // (rows * teams * MOST_PARTS))), teams)

    def parts(self, count: int) -> int:
        """Parts of a batch of ``count`` rows."""
        return max(1, -(-count // (self.rows_of_tile * self.teams * self.tiles_of_part)))


def blocks_for(items: int, each: int = BLOCK_THREADS) -> int:
    """Blocks for a loop over so many items, of which a block takes ``each`` at once."""
    return max(1, min(-(-items // each), 4 * MOST_PARTS))
