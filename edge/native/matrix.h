// A stored matrix as the kernels see it, and activations as quantised matrices take them. Where a matrix's parts lie
// in the bytes is decided in edge/checkpoint/layout.py.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace flashgate {

enum class Format : uint8_t { kF32 = 0, kF16 = 1, kBF16 = 2, kQ8 = 3, kQ4 = 4, kQ3 = 5, kQ2 = 6 };

constexpr bool is_quantized(Format format) { return format >= Format::kQ8; }

constexpr size_t kTileRows = 16;   // of a quantised matrix that are stored together
constexpr size_t kBlockCols = 64;  // that share a scale of the activations; a group is a whole number of them
constexpr size_t kSidesBytes = 2 * kTileRows * sizeof(uint16_t);  // a tile's scales and biases of one group

// Bytes of the codes of one tile's block.
constexpr size_t block_bytes(Format format) {
    constexpr size_t kBits[] = {32, 16, 16, 8, 4, 3, 2};
    return kTileRows * kBlockCols * kBits[static_cast<size_t>(format)] / 8;
}

struct MatrixView {
    Format format;
    size_t rows, cols;
    size_t group;         // columns that share a scale and a bias; 0 for float formats
    size_t padded_cols;   // columns stored: a multiple of 16, or of `group`
    size_t record_bytes;  // of one tile's group; 0 for float formats
    const uint8_t* data;

    size_t num_blocks() const { return padded_cols / kBlockCols; }
    size_t tile_bytes() const { return padded_cols / group * record_bytes; }
};

// An activation is quantised, per token and block, to an integer q of kDigits signed base-256 digits, so that its
// dot products with codes are exact integers and yet int8 instructions. Two digits make the error of the activations
// 1e-5 of a block's greatest, far below that of any weights; one would make it 4e-3 (edge/EXPERIMENTS.md).
constexpr size_t kDigits = 2;
constexpr int32_t kDigitsTop = kDigits == 2 ? 127 * 256 : 127;  // greatest |q|
constexpr size_t kDigitBytes = kDigits * kBlockCols;            // of one token's block

struct Digits {
    int8_t* digits;  // [num_blocks, num_tokens, kDigits, 64], the highest digit first
    float* scales;   // [num_blocks, num_tokens]: x is about scale * q
    float* sums;     // [num_blocks, num_tokens]: scale * sum of q
    size_t num_tokens;
};

}  // namespace flashgate
