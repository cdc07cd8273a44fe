// Products of tiles of 64 by 64 numbers: a block's threads add up 4 by 4 of them each.
#pragma once

#include "cuda/common.cuh"

namespace schuss {

constexpr int tile_side = 64;
constexpr int tile_depth = 16;  // terms of a sum that are in shared memory at once

// One side of a tile; the last column keeps threads off each other's memory banks.
template <class T>
using Panel = T[tile_side][tile_depth + 1];

// One thread's numbers.
template <class T>
struct Corner {
  T sum[4][4] = {};
  SCHUSS_DEVICE static int down() { return int(threadIdx.x) / 16 * 4; }
  SCHUSS_DEVICE static int across() { return int(threadIdx.x) % 16 * 4; }
  SCHUSS_DEVICE void add(const Panel<T>& left, const Panel<T>& right) {
#pragma unroll
    for (int j = 0; j < tile_depth; ++j)
      for (int a = 0; a < 4; ++a)
        for (int b = 0; b < 4; ++b) sum[a][b] += left[down() + a][j] * right[across() + b][j];
  }
};

// `tile_depth` numbers of 64 rows of X, from place `begin` and column `first` on; zeros beyond.
template <class S>
SCHUSS_DEVICE void fill_panel(Panel<Scalar<S>>& panel, const S* X, int64_t width, const Rows& rows,
                              int64_t begin, int64_t first) {
  for (int at = threadIdx.x; at < tile_side * tile_depth; at += block_threads) {
    const int r = at / tile_depth, j = at % tile_depth;
    const bool inside = first + j < width && begin + r < rows.count;
    panel[r][j] = inside ? widen(X[row_at(rows, begin + r) * width + first + j]) : Scalar<S>(0);
  }
}

}  // namespace schuss
