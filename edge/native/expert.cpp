// down(silu(gate x) * up x): rows of gate and up are computed side by side, so that the activation is applied to them
// while they are in the cache.
#include <algorithm>
#include <cstring>

#include "buffer.h"
#include "ops.h"
#include "padded.h"
#include "tasks.h"

namespace flashgate {
namespace {

constexpr size_t kRowsPerTask = 32;

// Rows [begin, end) of silu(gate x) * up x, in columns [begin, end) of h; `up` is scratch of h's shape.
void activate_rows(const Kernels& kernels, const ExpertView& expert, const Padded& x, size_t num_tokens, float* h,
                   float* up, size_t stride, size_t begin, size_t end) {
    kernels.matmul_rows(expert.gate, x.data(), x.stride(), num_tokens, h, stride, begin, end);
    kernels.matmul_rows(expert.up, x.data(), x.stride(), num_tokens, up, stride, begin, end);
    for (size_t t = 0; t < num_tokens; ++t) {
        float* row = h + t * stride + begin;
        kernels.silu_mul(row, up + t * stride + begin, row, end - begin);
    }
}

void clear_padding(float* h, size_t num_rows, size_t width, size_t stride) {
    for (size_t i = 0; i < num_rows; ++i) std::memset(h + i * stride + width, 0, (stride - width) * sizeof(float));
}

}  // namespace

void expert_ffn(Runtime& rt, const ExpertView& expert, const float* x, size_t num_tokens, float* y) {
    if (num_tokens == 0) return;
    const MatrixView &gate = expert.gate, &down = expert.down;
    const size_t stride = down.padded_cols;
    const Padded input(x, num_tokens, gate.cols, gate.padded_cols);
    const Buffer h(num_tokens * stride), up(num_tokens * stride);
    clear_padding(h.get(), num_tokens, down.cols, stride);
    for_pieces(rt.pool, gate.rows, kRowsPerTask, 2 * gate.padded_cols * num_tokens, [&](size_t begin, size_t end) {
        activate_rows(*rt.kernels, expert, input, num_tokens, h.get(), up.get(), stride, begin, end);
    });
    for_pieces(rt.pool, down.rows, kRowsPerTask, down.padded_cols * num_tokens, [&](size_t begin, size_t end) {
        rt.kernels->matmul_rows(down, h.get(), stride, num_tokens, y, down.rows, begin, end);
    });
}

void expert_ffn_many(Runtime& rt, const ExpertView* experts, size_t num_experts, const float* x, float* y) {
    if (num_experts == 0) return;
    const MatrixView &gate = experts[0].gate, &down = experts[0].down;
    const size_t stride = down.padded_cols;
    const Padded input(x, 1, gate.cols, gate.padded_cols);
    const Buffer h(num_experts * stride), up(num_experts * stride);
    clear_padding(h.get(), num_experts, down.cols, stride);
    const auto for_all = [&](size_t rows, size_t work, auto&& body) {
        const size_t pieces = (rows + kRowsPerTask - 1) / kRowsPerTask;
        for_pieces(rt.pool, num_experts * pieces, 1, work * kRowsPerTask, [&](size_t first, size_t last) {
            for (size_t i = first; i < last; ++i) {
                const size_t begin = i % pieces * kRowsPerTask;
                body(i / pieces, begin, std::min(rows, begin + kRowsPerTask));
            }
        });
    };
    for_all(gate.rows, 2 * gate.padded_cols, [&](size_t e, size_t begin, size_t end) {
        const size_t at = e * stride;
        activate_rows(*rt.kernels, experts[e], input, 1, h.get() + at, up.get() + at, stride, begin, end);
    });
    for_all(down.rows, down.padded_cols, [&](size_t e, size_t begin, size_t end) {
        rt.kernels->matmul_rows(experts[e].down, h.get() + e * stride, stride, 1, y + e * down.rows, down.rows, begin,
                                end);
    });
}

}  // namespace flashgate
