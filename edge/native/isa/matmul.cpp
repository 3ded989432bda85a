// y = x Wᵀ for some rows of W.
//
// One result is the sum over the lanes of one vector accumulator, to which the columns are added from first to last.
// Every path below keeps this order, so they agree bit for bit.
#include "decode.h"
#include "table.h"

namespace flashgate::FLASHGATE_VARIANT {
namespace {

struct Tokens {
    const float* x;
    size_t stride;
};

// Rows × tokens of accumulators in registers, over columns [begin, end); x and rows start at column 0.
template <typename R, size_t kRows, size_t kTokens>
inline void accumulate(R* rows, const float* const* x, size_t begin, size_t end, Floats (&acc)[kRows][kTokens]) {
    constexpr size_t kVectors = R::kStep / kLanes;
    for (size_t column = begin; column < end; column += R::kStep) {
        Floats w[kRows][kVectors];
#pragma GCC unroll 8
        for (size_t r = 0; r < kRows; ++r) rows[r].decode(column, w[r]);
#pragma GCC unroll 8
        for (size_t i = 0; i < kVectors; ++i) {
#pragma GCC unroll 8
            for (size_t t = 0; t < kTokens; ++t) {
                const Floats xt = load(x[t] + column + i * kLanes);
#pragma GCC unroll 8
                for (size_t r = 0; r < kRows; ++r) acc[r][t] = fma(w[r][i], xt, acc[r][t]);
            }
        }
    }
}

// ---- Few tokens: weights are decoded in registers, straight from where they are stored. ----

template <Format format, size_t kRows, size_t kTokens>
void direct_tile(const MatrixView& w, Tokens tokens, float* y, size_t y_stride, size_t row) {
    using R = Row<format>;
    R rows[kRows];
    for (size_t r = 0; r < kRows; ++r) rows[r].start(w, row + r);
    const float* x[kTokens];
    for (size_t t = 0; t < kTokens; ++t) x[t] = tokens.x + t * tokens.stride;

    Floats acc[kRows][kTokens] = {};
    const size_t group = R::kGrouped ? w.group : w.padded_cols;
    for (size_t g = 0, column = 0; column < w.padded_cols; ++g, column += group) {
#pragma GCC unroll 8
        for (size_t r = 0; r < kRows; ++r) rows[r].open(g);
        accumulate<R, kRows, kTokens>(rows, x, column, column + group, acc);
    }
    for (size_t r = 0; r < kRows; ++r)
        for (size_t t = 0; t < kTokens; ++t) y[t * y_stride + row + r] = sum(acc[r][t]);
}

constexpr size_t kDirectTokens = 3;

template <Format format, size_t kTokens>
void direct_rows(const MatrixView& w, Tokens tokens, float* y, size_t y_stride, size_t begin, size_t end) {
    constexpr size_t kRows = kRegisters == 32 && kTokens == 1 ? 8 : 4;
    size_t row = begin;
    for (; row + kRows <= end; row += kRows) direct_tile<format, kRows, kTokens>(w, tokens, y, y_stride, row);
    for (; row < end; ++row) direct_tile<format, 1, kTokens>(w, tokens, y, y_stride, row);
}

// ---- Many tokens: a block of rows is decoded once into a scratch that stays in the cache. ----

constexpr size_t kBlockRows = 32;
constexpr size_t kBlockCols = 512;
constexpr size_t kBlockTokens = 48;
constexpr size_t kTileRows = 4;
constexpr size_t kTileTokens = kRegisters == 32 ? 6 : 2;

struct Block {
    alignas(64) float weights[kBlockRows][kBlockCols];
    alignas(64) float acc[kBlockTokens][kBlockRows][kLanes];
};

template <Format format>
void decode_block(const MatrixView& w, size_t row_begin, size_t num_rows, size_t begin, size_t end, Block& block) {
    using R = Row<format>;
    for (size_t r = 0; r < num_rows; ++r) {
        R row;
        row.start(w, row_begin + r);
        float* out = block.weights[r];
        row.open(R::kGrouped ? begin / w.group : 0);
        for (size_t column = begin; column < end; column += R::kStep, out += R::kStep) {
            if (R::kGrouped && column % w.group == 0) row.open(column / w.group);
            Floats v[R::kStep / kLanes];
            row.decode(column, v);
            for (size_t i = 0; i < R::kStep / kLanes; ++i) store(out + i * kLanes, v[i]);
        }
    }
}

struct Scratch {
    static constexpr size_t kStep = 16;
    const float* weights;
    void decode(size_t column, Floats* out) const {
        for (size_t i = 0; i < kStep / kLanes; ++i) out[i] = load(weights + column + i * kLanes);
    }
};

template <size_t kRows, size_t kTokens>
void block_tile(Block& block, const float* x0, size_t x_stride, size_t num_cols, size_t row, size_t token) {
    Scratch rows[kRows];
    for (size_t r = 0; r < kRows; ++r) rows[r].weights = block.weights[row + r];
    const float* x[kTokens];
    for (size_t t = 0; t < kTokens; ++t) x[t] = x0 + (token + t) * x_stride;
    Floats acc[kRows][kTokens];
#pragma GCC unroll 8
    for (size_t r = 0; r < kRows; ++r)
#pragma GCC unroll 8
        for (size_t t = 0; t < kTokens; ++t) acc[r][t] = load(block.acc[token + t][row + r]);
    accumulate<Scratch, kRows, kTokens>(rows, x, 0, num_cols, acc);
#pragma GCC unroll 8
    for (size_t r = 0; r < kRows; ++r)
#pragma GCC unroll 8
        for (size_t t = 0; t < kTokens; ++t) store(block.acc[token + t][row + r], acc[r][t]);
}

template <size_t kTokens>
void block_rows(Block& block, const float* x, size_t x_stride, size_t num_cols, size_t num_rows, size_t token) {
    size_t row = 0;
    for (; row + kTileRows <= num_rows; row += kTileRows)
        block_tile<kTileRows, kTokens>(block, x, x_stride, num_cols, row, token);
    for (; row < num_rows; ++row) block_tile<1, kTokens>(block, x, x_stride, num_cols, row, token);
}

template <Format format>
void blocked_rows(const MatrixView& w, Tokens tokens, size_t num_tokens, float* y, size_t y_stride, size_t begin,
                  size_t end) {
    Block block;
    const size_t num_rows = end - begin;
    memset(block.acc, 0, num_tokens * sizeof(block.acc[0]));
    for (size_t column = 0; column < w.padded_cols; column += kBlockCols) {
        const size_t stop = column + kBlockCols < w.padded_cols ? column + kBlockCols : w.padded_cols;
        decode_block<format>(w, begin, num_rows, column, stop, block);
        const float* x = tokens.x + column;
        size_t token = 0;
        for (; token + kTileTokens <= num_tokens; token += kTileTokens)
            block_rows<kTileTokens>(block, x, tokens.stride, stop - column, num_rows, token);
        for (; token < num_tokens; ++token) block_rows<1>(block, x, tokens.stride, stop - column, num_rows, token);
    }
    for (size_t t = 0; t < num_tokens; ++t)
        for (size_t r = 0; r < num_rows; ++r) y[t * y_stride + begin + r] = sum(load(block.acc[t][r]));
}

template <Format format>
void rows_of(const MatrixView& w, Tokens tokens, size_t num_tokens, float* y, size_t y_stride, size_t begin,
             size_t end) {
    if (num_tokens == 1) return direct_rows<format, 1>(w, tokens, y, y_stride, begin, end);
    if (num_tokens == 2) return direct_rows<format, 2>(w, tokens, y, y_stride, begin, end);
    if (num_tokens == 3) return direct_rows<format, 3>(w, tokens, y, y_stride, begin, end);
    static_assert(kDirectTokens == 3);
    for (size_t row = begin; row < end; row += kBlockRows) {
        const size_t stop = row + kBlockRows < end ? row + kBlockRows : end;
        for (size_t t = 0; t < num_tokens; t += kBlockTokens) {
            const size_t count = t + kBlockTokens < num_tokens ? kBlockTokens : num_tokens - t;
            const Tokens part = {tokens.x + t * tokens.stride, tokens.stride};
            blocked_rows<format>(w, part, count, y + t * y_stride, y_stride, row, stop);
        }
    }
}

}  // namespace

void matmul_rows(const MatrixView& w, const float* x, size_t x_stride, size_t num_tokens, float* y, size_t y_stride,
                 size_t row_begin, size_t row_end) {
    const Tokens tokens = {x, x_stride};
    switch (w.format) {
        case Format::kF32: return rows_of<Format::kF32>(w, tokens, num_tokens, y, y_stride, row_begin, row_end);
        case Format::kF16: return rows_of<Format::kF16>(w, tokens, num_tokens, y, y_stride, row_begin, row_end);
        case Format::kBF16: return rows_of<Format::kBF16>(w, tokens, num_tokens, y, y_stride, row_begin, row_end);
        case Format::kQ8: return rows_of<Format::kQ8>(w, tokens, num_tokens, y, y_stride, row_begin, row_end);
        case Format::kQ4: return rows_of<Format::kQ4>(w, tokens, num_tokens, y, y_stride, row_begin, row_end);
    }
}

}  // namespace flashgate::FLASHGATE_VARIANT
