#include "ops.h"
#include "padded.h"
#include "tasks.h"

namespace flashgate {

// Rows per task: a multiple of the block that isa/matmul.cpp decodes at once, and small enough to share out evenly.
constexpr size_t kRowsPerTask = 32;

void matmul(Runtime& rt, const MatrixView& w, const float* x, size_t num_tokens, float* y) {
    if (num_tokens == 0) return;
    const Padded input(x, num_tokens, w.cols, w.padded_cols);
    for_pieces(rt.pool, w.rows, kRowsPerTask, w.padded_cols * num_tokens, [&](size_t begin, size_t end) {
        rt.kernels->matmul_rows(w, input.data(), input.stride(), num_tokens, y, w.rows, begin, end);
    });
}

}  // namespace flashgate
