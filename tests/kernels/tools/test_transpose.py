"""The numba kernels' way between rows in memory and a tile."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("numba")

from fastppo.kernels.tools.numba_transpose import from_tile, to_tile

TILE_ROWS = 16


@given(height=st.integers(1, TILE_ROWS), width=st.integers(1, 21))
def test_tile_holds_the_rows_as_columns(height: int, width: int) -> None:
    rows = np.arange(height * width, dtype=np.float32)
    tile = np.full((width, TILE_ROWS), np.nan, np.float32)
    to_tile(rows, width, tile)
    np.testing.assert_array_equal(tile[:, :height], rows.reshape(height, width).T)
    assert np.isnan(tile[:, height:]).all(), "wrote behind the rows"


@given(height=st.integers(1, TILE_ROWS), width=st.integers(1, 21))
def test_rows_come_back_from_the_tile(height: int, width: int) -> None:
    tile = np.arange(width * TILE_ROWS, dtype=np.float32).reshape(width, TILE_ROWS)
    memory = np.full(height * width + 2, np.nan, np.float32)
    from_tile(tile, width, memory[1:-1])
    np.testing.assert_array_equal(memory[1:-1].reshape(height, width), tile[:, :height].T)
    assert np.isnan(memory[[0, -1]]).all(), "wrote outside the rows"


def test_a_square_by_hand() -> None:
    rows = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16], np.float32)
    tile = np.zeros((4, 4), np.float32)
    to_tile(rows, 4, tile)
    assert tile.tolist() == [[1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15], [4, 8, 12, 16]]
