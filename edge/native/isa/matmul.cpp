// y = x Wᵀ for some rows of W in a float format.
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

// Above this many, decoding them again for each tile of tokens costs more than keeping them decoded.
constexpr size_t kDirectTokens = 32;
constexpr size_t kDirectTile = 4;

// Asks for the columns [begin, begin + count) of the next tile, which lies right behind this one: the rows are too
// short, and too many at once, for the CPU to foresee them.
template <typename R, size_t kRows>
inline void prefetch_next_tile(const R* rows, size_t begin, size_t count, size_t padded_cols) {
    for (size_t r = 0; r < kRows; ++r) {
        const char* next = (const char*)rows[r].address(begin) + kRows * R::bytes(padded_cols);
        for (size_t i = 0; i < R::bytes(count); i += 64) __builtin_prefetch(next + i);
    }
}

template <Format format, size_t kRows, size_t kTokens>
void direct_tile(const MatrixView& w, Tokens tokens, float* y, size_t y_stride, size_t row) {
    using R = Row<format>;
    R rows[kRows];
    for (size_t r = 0; r < kRows; ++r) rows[r].start(w, row + r);
    const float* x[kTokens];
    for (size_t t = 0; t < kTokens; ++t) x[t] = tokens.x + t * tokens.stride;

    Floats acc[kRows][kTokens] = {};
    constexpr size_t kColumns = 64;  // between prefetches
    for (size_t column = 0; column < w.padded_cols; column += kColumns) {
        prefetch_next_tile<R, kRows>(rows, column, kColumns, w.padded_cols);
        const size_t end = column + kColumns < w.padded_cols ? column + kColumns : w.padded_cols;
        accumulate<R, kRows, kTokens>(rows, x, column, end, acc);
    }
    for (size_t r = 0; r < kRows; ++r)
        for (size_t t = 0; t < kTokens; ++t) y[t * y_stride + row + r] = sum(acc[r][t]);
}

// All tokens, in tiles of kTokens; then the last ones in one tile of as many.
template <Format format, size_t kRows, size_t kTokens>
void direct_tokens(const MatrixView& w, Tokens tokens, size_t num_tokens, float* y, size_t y_stride, size_t row) {
    for (; num_tokens >= kTokens; num_tokens -= kTokens) {
        direct_tile<format, kRows, kTokens>(w, tokens, y, y_stride, row);
        tokens.x += kTokens * tokens.stride;
        y += kTokens * y_stride;
    }
    if constexpr (kTokens > 1) direct_tokens<format, kRows, kTokens - 1>(w, tokens, num_tokens, y, y_stride, row);
}

template <Format format, size_t kRows, size_t kTokens>
void direct_rows(const MatrixView& w, Tokens tokens, size_t num_tokens, float* y, size_t y_stride, size_t begin,
                 size_t end) {
    size_t row = begin;
    for (; row + kRows <= end; row += kRows)
        direct_tokens<format, kRows, kTokens>(w, tokens, num_tokens, y, y_stride, row);
    for (; row < end; ++row) direct_tokens<format, 1, kTokens>(w, tokens, num_tokens, y, y_stride, row);
}

// ---- Many tokens: a block of rows is decoded once into a scratch that stays in the cache. ----

constexpr size_t kBlockRows = 32;
constexpr size_t kBlockCols = 512;
constexpr size_t kBlockTokens = 48;
constexpr size_t kTileRows = kRegisters == 32 ? 4 : 2;
constexpr size_t kTileTokens = 6;

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
        for (size_t column = begin; column < end; column += R::kStep, out += R::kStep) {
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

// Tokens from `token` on, in tiles of kTokens; then the last ones in one tile of as many.
template <size_t kTokens>
void block_tokens(Block& block, const float* x, size_t x_stride, size_t num_cols, size_t num_rows, size_t token,
                  size_t num_tokens) {
    for (; token + kTokens <= num_tokens; token += kTokens) {
        size_t row = 0;
        for (; row + kTileRows <= num_rows; row += kTileRows)
            block_tile<kTileRows, kTokens>(block, x, x_stride, num_cols, row, token);
        for (; row < num_rows; ++row) block_tile<1, kTokens>(block, x, x_stride, num_cols, row, token);
    }
    if constexpr (kTokens > 1)
        block_tokens<kTokens - 1>(block, x, x_stride, num_cols, num_rows, token, num_tokens);
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
        block_tokens<kTileTokens>(block, x, tokens.stride, stop - column, num_rows, 0, num_tokens);
    }
    for (size_t t = 0; t < num_tokens; ++t)
        for (size_t r = 0; r < num_rows; ++r) y[t * y_stride + begin + r] = sum(load(block.acc[t][r]));
}

template <Format format>
void rows_of(const MatrixView& w, Tokens tokens, size_t num_tokens, float* y, size_t y_stride, size_t begin,
             size_t end) {
    constexpr size_t kRows = kRegisters == 32 ? 4 : 2;
    if (num_tokens == 1) return direct_rows<format, 4, 1>(w, tokens, 1, y, y_stride, begin, end);
    if (num_tokens <= kDirectTokens)
        return direct_rows<format, kRows, kDirectTile>(w, tokens, num_tokens, y, y_stride, begin, end);
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
        default: __builtin_unreachable();  // quantised: matmul_tiles
    }
}

}  // namespace flashgate::FLASHGATE_VARIANT
