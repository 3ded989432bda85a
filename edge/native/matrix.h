// A stored matrix as the kernels see it. Where its parts lie in the bytes is decided in edge/checkpoint/layout.py.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace flashgate {

enum class Format : uint8_t { kF32 = 0, kF16 = 1, kBF16 = 2, kQ8 = 3, kQ4 = 4 };

struct MatrixView {
    Format format;
    size_t rows, cols;
    size_t group;        // columns that share a scale and a bias; 0 for float formats
    size_t padded_cols;  // columns stored: a multiple of 16, or of `group`
    size_t num_groups;   // per row
    const uint8_t* codes;
    const uint16_t* scales;  // fp16 [rows, num_groups]
    const uint16_t* biases;  // fp16 [rows, num_groups]
};

}  // namespace flashgate
