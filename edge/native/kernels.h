// The arithmetic that exists once per instruction set. isa/ fills one table per variant; dispatch.cpp finds them.
//
// Each function computes some rows, heads or channels of a result on the calling thread. The order in which a
// result's terms are added depends on the result alone, never on how the work is cut: results for a token are
// bit-identical in any batch and on any number of threads.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "matrix.h"

namespace flashgate {

// Depthwise causal convolution over time, then SiLU.
struct Convolution {
    const float* x;       // [num_tokens, channels]
    const float* weight;  // [width, channels]
    float* state;         // [width - 1, channels]: the inputs before x on entry, the last inputs on return
    float* out;           // [num_tokens, channels]
    size_t num_tokens, channels, width;
};
constexpr size_t kMaxConvWidth = 16;

// The gated delta rule, S *= decay; S += k ⊗ beta (v − Sᵀk); y = Sᵀq, for each value head.
struct DeltaRule {
    const float* q;      // [num_tokens, key_heads, key_dim], normalised and scaled
    const float* k;      // [num_tokens, key_heads, key_dim], normalised
    const float* v;      // [num_tokens, value_heads, value_dim]
    const float* decay;  // [num_tokens, value_heads]
    const float* beta;   // [num_tokens, value_heads]
    float* state;        // [value_heads, key_dim, value_dim]
    float* out;          // [num_tokens, value_heads, value_dim]
    size_t num_tokens, key_heads, value_heads, key_dim, value_dim;
};

// Causal attention with grouped heads: token t sees keys 0 ... start + t.
struct Attention {
    const float* q;  // [num_tokens, query_heads, dim]
    const float* k;  // [start + num_tokens or more, kv_heads, dim]
    const float* v;
    float* out;  // [num_tokens, query_heads, dim]
    size_t num_tokens, start, query_heads, kv_heads, dim;
};
constexpr size_t kMaxQueries = 16;  // that attend() takes at once

constexpr size_t kMaxTokens = 256;  // that matmul_tiles() takes at once

struct Kernels {
    const char* name;

    // y[t * y_stride + r] = sum over c of x[t * x_stride + c] * w[r, c], for r in [row_begin, row_end).
    // w is of a float format; x holds padded_cols floats per token.
    void (*matmul_rows)(const MatrixView& w, const float* x, size_t x_stride, size_t num_tokens, float* y,
                        size_t y_stride, size_t row_begin, size_t row_end);

    // The same for a quantised w and at most kMaxTokens tokens; row_begin is a multiple of kTileRows.
    void (*matmul_tiles)(const MatrixView& w, const Digits& x, float* y, size_t y_stride, size_t row_begin,
                         size_t row_end);
    // Writes `num_blocks` blocks of one token, from `block` on: `num_columns` of x, then zeros.
    void (*quantize)(const float* x, size_t num_columns, const Digits& out, size_t token, size_t block,
                     size_t num_blocks);

    void (*convolve)(const Convolution& job, size_t channel_begin, size_t channel_end);
    void (*delta_columns)(const DeltaRule& job, size_t value_head, size_t column_begin, size_t column_end);
    // Queries are those that share kv_head, numbered t * (query_heads / kv_heads) + head within the group.
    void (*attend)(const Attention& job, size_t kv_head, size_t query_begin, size_t query_end);

    // out = silu(gate) * up; out may be gate or up.
    void (*silu_mul)(const float* gate, const float* up, float* out, size_t n);
    // out = sigmoid(gate) * x; out may be gate or x.
    void (*sigmoid_mul)(const float* gate, const float* x, float* out, size_t n);
    // out += weight * y
    void (*add_scaled)(float* out, const float* y, float weight, size_t n);
    // out = x / sqrt(mean(x²) + eps) * (offset + w)
    void (*rms_norm)(const float* x, const float* w, float offset, float eps, float* out, size_t n);
    // out = x / sqrt(sum(x²) + eps) * scale
    void (*l2_normalize)(const float* x, float eps, float scale, float* out, size_t n);
    void (*softmax)(const float* x, float* out, size_t n);
    // The exclusive or of all 32-bit words; n is their number.
    uint32_t (*read_words)(const uint32_t* words, size_t n);
};

// The variants that this CPU can run, best first; at least one.
const Kernels* const* supported_kernels(size_t* count);

}  // namespace flashgate
