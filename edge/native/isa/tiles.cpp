// y = x Wᵀ for some rows of a quantised W.
//
// A result is acc = fma(dot, scale_w * scale_x, acc), acc = fma(bias, sum_x, acc) over the blocks of 64 columns from
// first to last, where dot is an exact integer. Every path below keeps this order, so they agree bit for bit.
#include "quads.h"
#include "table.h"

namespace flashgate::FLASHGATE_VARIANT {
namespace {

struct Side {
    Floats scale, bias;
};

inline Side load_side(const uint8_t* record, size_t part) {
    const uint16_t* halves = (const uint16_t*)record + part * kLanes;
    return {from_f16(halves), from_f16(halves + kTileRows)};
}

// The digits of some consecutive tokens in one block.
struct BlockDigits {
    const int8_t* digits;
    const float *scales, *sums;

    BlockDigits(const Digits& x, size_t token, size_t block) {
        const size_t at = block * x.num_tokens + token;
        digits = x.digits + at * kDigitBytes;
        scales = x.scales + at;
        sums = x.sums + at;
        // Lest the compiler keep all broadcast digits on the stack for the next part of a tile.
        if (kParts > 1) asm volatile("" : "+r"(digits));
    }
};

// acc[t][r]: the sums of token t of x and the rows of codes[r].
template <typename Source, size_t kTokens, size_t kTiles>
inline void add_block(const uint8_t* const (&codes)[kTiles], const Side (&sides)[kTiles], const BlockDigits& x,
                      Floats (*acc)[kTiles]) {
    Ints dots[kTiles][kTokens];
    dot_block<Source>(codes, x.digits, dots);
#pragma GCC unroll 8
    for (size_t t = 0; t < kTokens; ++t) {
        const Floats scale = splat(x.scales[t]), sum = splat(x.sums[t]);
#pragma GCC unroll 4
        for (size_t r = 0; r < kTiles; ++r) {
            acc[t][r] = fma(__builtin_convertvector(dots[r][t], Floats), sides[r].scale * scale, acc[t][r]);
            acc[t][r] = fma(sides[r].bias, sum, acc[t][r]);
        }
    }
}

// ---- Few tokens: codes are decoded in registers, straight from where they are stored. ----

// How many tiles and tokens at once: two tiles of 4 bits share the digits that are broadcast, and the sums of four
// tokens fill half of the registers; of the other formats GCC spills them. And up to how many tokens: above, decoding
// again costs more than keeping what was decoded.
template <Format format>
struct Direct {
    static constexpr bool kIsWide = kLanes == 16 && format == Format::kQ4;
    static constexpr size_t kTiles = kIsWide ? 2 : 1;
    static constexpr size_t kStep = kLanes == 16 && !kIsWide ? 8 : 4;
    static constexpr size_t kTokens = kIsWide ? 32 : kStep;
};

template <Format format, size_t kTiles, size_t kTokens>
void direct_tiles(const MatrixView& w, const Digits& x, size_t token, float* y, size_t y_stride, size_t row) {
    constexpr size_t kBytes = block_bytes(format);
    Floats acc[kParts][kTokens][kTiles] = {};
    const size_t stride = w.tile_bytes();
    const uint8_t* record = w.data + row / kTileRows * stride;
    // The rows that follow these are asked for at the pace at which these are used: memory answers a far and straight
    // stream best (edge/EXPERIMENTS.md).
    const uint8_t* next = record + kTiles * stride;
    for (size_t block = 0; block < w.num_blocks(); record += w.record_bytes) {
        const uint8_t* const end = record + w.record_bytes;
        for (const uint8_t* codes = record + kSidesBytes; codes < end; codes += kBytes, ++block) {
            for (size_t i = 0; i < kTiles * (kBytes + kSidesBytes); i += 64) __builtin_prefetch(next + i);
            next += kTiles * (kBytes + kSidesBytes);
            for (size_t part = 0; part < kParts; ++part) {
                const BlockDigits digits(x, token, block);
                const uint8_t* at[kTiles];
                Side sides[kTiles];
#pragma GCC unroll 4
                for (size_t r = 0; r < kTiles; ++r) {
                    at[r] = codes + r * stride + part * kPartBytes;
                    sides[r] = load_side(record + r * stride, part);
                }
                add_block<Stored<format>, kTokens>(at, sides, digits, acc[part]);
            }
        }
    }
    for (size_t r = 0; r < kTiles; ++r)
        for (size_t part = 0; part < kParts; ++part) {
            const size_t first = row + r * kTileRows + part * kLanes;
            if (first >= w.rows) return;
            for (size_t t = 0; t < kTokens; ++t) {
                float* out = y + (token + t) * y_stride + first;
                const Floats sums = acc[part][t][r];
                w.rows - first < kLanes ? store_first(out, sums, w.rows - first) : store(out, sums);
            }
        }
}

// Tokens from `token` on, kTokens at once; then the last ones together.
template <Format format, size_t kTiles, size_t kTokens>
void direct_tokens(const MatrixView& w, const Digits& x, size_t token, float* y, size_t y_stride, size_t row) {
    for (; token + kTokens <= x.num_tokens; token += kTokens)
        direct_tiles<format, kTiles, kTokens>(w, x, token, y, y_stride, row);
    if constexpr (kTokens > 1) direct_tokens<format, kTiles, kTokens - 1>(w, x, token, y, y_stride, row);
}

template <Format format>
void direct_rows(const MatrixView& w, const Digits& x, float* y, size_t y_stride, size_t begin, size_t end) {
    constexpr size_t kTiles = Direct<format>::kTiles, kRows = kTiles * kTileRows, kStep = Direct<format>::kStep;
    size_t row = begin;
    for (; row + (kTiles - 1) * kTileRows < end; row += kRows)
        direct_tokens<format, kTiles, kStep>(w, x, 0, y, y_stride, row);
    for (; row < end; row += kTileRows) direct_tokens<format, 1, kStep>(w, x, 0, y, y_stride, row);
}

// ---- Many tokens: a block of tiles is decoded once into a scratch that stays in the cache. ----

constexpr size_t kPanelTiles = 4;
constexpr size_t kPanelBlocks = 8;
constexpr size_t kTilesAtOnce = kLanes == 16 ? 2 : 1;
constexpr size_t kTokensAtOnce = kLanes == 16 ? 6 : 4;

struct Panel {
    alignas(64) uint8_t codes[kPanelTiles][kPanelBlocks][kPlanesOfBytes * kQuads * kQuadBytes];
    alignas(64) float scale[kPanelTiles][kPanelBlocks][kTileRows], bias[kPanelTiles][kPanelBlocks][kTileRows];
    alignas(64) float acc[kMaxTokens][kPanelTiles][kTileRows];
};

template <Format format>
void decode_block(const uint8_t* stored, uint8_t* out) {
    using Source = Stored<format>;
    for (size_t part = 0; part < kQuadBytes; part += kPartBytes)
#pragma GCC unroll 2
        for (size_t plane = 0; plane < Source::kPlanes; ++plane)
#pragma GCC unroll 16
            for (size_t i = 0; i < kQuads; ++i) {
                const Codes quad = Source::quad(stored + part, plane, i);
                memcpy(out + (plane * kQuads + i) * kQuadBytes + part, &quad, sizeof(quad));
            }
}

template <Format format>
void decode_panel(const MatrixView& w, size_t row, size_t num_tiles, size_t block, size_t num_blocks, Panel& panel) {
    const size_t per_group = w.group / kBlockCols;
    for (size_t r = 0; r < num_tiles; ++r) {
        const uint8_t* tile = w.data + (row / kTileRows + r) * w.tile_bytes();
        for (size_t b = 0; b < num_blocks; ++b) {
            const uint8_t* record = tile + (block + b) / per_group * w.record_bytes;
            decode_block<format>(record + kSidesBytes + (block + b) % per_group * block_bytes(format),
                                 panel.codes[r][b]);
            for (size_t part = 0; part < kParts; ++part) {
                const Side side = load_side(record, part);
                store(panel.scale[r][b] + part * kLanes, side.scale);
                store(panel.bias[r][b] + part * kLanes, side.bias);
            }
        }
    }
}

template <typename Source, size_t kTiles, size_t kTokens>
void panel_tile(Panel& panel, const Digits& x, size_t tile, size_t token, size_t block, size_t num_blocks,
                size_t lane) {
    Floats acc[kTokens][kTiles];
#pragma GCC unroll 8
    for (size_t t = 0; t < kTokens; ++t)
#pragma GCC unroll 4
        for (size_t r = 0; r < kTiles; ++r) acc[t][r] = load(panel.acc[token + t][tile + r] + lane);
    for (size_t b = 0; b < num_blocks; ++b) {
        const uint8_t* codes[kTiles];
        Side sides[kTiles];
#pragma GCC unroll 4
        for (size_t r = 0; r < kTiles; ++r) {
            codes[r] = panel.codes[tile + r][b] + 4 * lane;
            sides[r] = {load(panel.scale[tile + r][b] + lane), load(panel.bias[tile + r][b] + lane)};
        }
        add_block<Source, kTokens>(codes, sides, BlockDigits(x, token, block + b), acc);
    }
#pragma GCC unroll 8
    for (size_t t = 0; t < kTokens; ++t)
#pragma GCC unroll 4
        for (size_t r = 0; r < kTiles; ++r) store(panel.acc[token + t][tile + r] + lane, acc[t][r]);
}

template <typename Source, size_t kTokens>
void panel_tokens(Panel& panel, const Digits& x, size_t num_tiles, size_t token, size_t block, size_t num_blocks) {
    for (; token + kTokens <= x.num_tokens; token += kTokens) {
        size_t tile = 0;
        for (; tile + kTilesAtOnce <= num_tiles; tile += kTilesAtOnce)
            for (size_t lane = 0; lane < kTileRows; lane += kLanes)
                panel_tile<Source, kTilesAtOnce, kTokens>(panel, x, tile, token, block, num_blocks, lane);
        if constexpr (kTilesAtOnce > 1)
            for (; tile < num_tiles; ++tile)
                panel_tile<Source, 1, kTokens>(panel, x, tile, token, block, num_blocks, 0);
    }
    if constexpr (kTokens > 1) panel_tokens<Source, kTokens - 1>(panel, x, num_tiles, token, block, num_blocks);
}

template <Format format>
void panel_rows(const MatrixView& w, const Digits& x, float* y, size_t y_stride, size_t row, size_t num_tiles) {
    Panel panel;
    memset(panel.acc, 0, x.num_tokens * sizeof(panel.acc[0]));
    for (size_t block = 0; block < w.num_blocks(); block += kPanelBlocks) {
        const size_t left = w.num_blocks() - block, num_blocks = left < kPanelBlocks ? left : kPanelBlocks;
        decode_panel<format>(w, row, num_tiles, block, num_blocks, panel);
        panel_tokens<Decoded<Stored<format>::kPlanes>, kTokensAtOnce>(panel, x, num_tiles, 0, block, num_blocks);
    }
    const size_t num_rows = w.rows - row < num_tiles * kTileRows ? w.rows - row : num_tiles * kTileRows;
    for (size_t t = 0; t < x.num_tokens; ++t)
        memcpy(y + t * y_stride + row, panel.acc[t], num_rows * sizeof(float));
}

template <Format format>
void rows_of(const MatrixView& w, const Digits& x, float* y, size_t y_stride, size_t begin, size_t end) {
    if (x.num_tokens <= Direct<format>::kTokens) return direct_rows<format>(w, x, y, y_stride, begin, end);
    for (size_t row = begin; row < end; row += kPanelTiles * kTileRows) {
        const size_t tiles = (end - row + kTileRows - 1) / kTileRows;
        panel_rows<format>(w, x, y, y_stride, row, tiles < kPanelTiles ? tiles : kPanelTiles);
    }
}

}  // namespace

void matmul_tiles(const MatrixView& w, const Digits& x, float* y, size_t y_stride, size_t row_begin, size_t row_end) {
    switch (w.format) {
        case Format::kQ8: return rows_of<Format::kQ8>(w, x, y, y_stride, row_begin, row_end);
        case Format::kQ4: return rows_of<Format::kQ4>(w, x, y, y_stride, row_begin, row_end);
        case Format::kQ3: return rows_of<Format::kQ3>(w, x, y, y_stride, row_begin, row_end);
        case Format::kQ2: return rows_of<Format::kQ2>(w, x, y, y_stride, row_begin, row_end);
        default: __builtin_unreachable();  // floats: matmul_rows
    }
}

}  // namespace flashgate::FLASHGATE_VARIANT
