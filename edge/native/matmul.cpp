#include <algorithm>

#include "input.h"
#include "ops.h"
#include "tasks.h"

namespace flashgate {
namespace {

// Rows of one task: whole tiles, enough tasks to share out evenly, and at most the panel that isa/tiles.cpp decodes.
size_t rows_per_task(size_t rows, size_t num_threads) {
    const size_t share = rows / (4 * num_threads) / kTileRows * kTileRows;
    return std::clamp<size_t>(share, kTileRows, 64);
}

void matmul_part(Runtime& rt, const MatrixView& w, const float* x, size_t num_tokens, float* y) {
    Input input(w, num_tokens);
    for_pieces(rt.pool, num_tokens, kTokensPerTask, w.cols / 8, [&](size_t begin, size_t end) {
        for (size_t t = begin; t < end; ++t) input.set(*rt.kernels, t, 0, x + t * w.cols, w.cols);
    });
    for_pieces(rt.pool, w.rows, rows_per_task(w.rows, rt.pool.size()), w.padded_cols * num_tokens,
               [&](size_t begin, size_t end) { input.multiply(*rt.kernels, w, y, w.rows, begin, end); });
}

}  // namespace

void matmul(Runtime& rt, const MatrixView& w, const float* x, size_t num_tokens, float* y) {
    for (size_t t = 0; t < num_tokens; t += kMaxTokens)
        matmul_part(rt, w, x + t * w.cols, std::min(kMaxTokens, num_tokens - t), y + t * w.rows);
}

}  // namespace flashgate
