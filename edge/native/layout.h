// Where the parts of a matrix and of an expert's block lie, as edge/checkpoint/layout.py says; checked here once, so
// that no kernel can be led outside the bytes it was given. Constructors throw std::invalid_argument.
#pragma once
#include <cstddef>
#include <cstdint>

#include "ops.h"

namespace flashgate {

constexpr size_t kMatrixAlignment = 64;

struct MatrixLayout {
    MatrixView shape;  // without an address
    size_t num_bytes;

    MatrixLayout(int format, size_t rows, size_t cols, size_t group, size_t padded_cols, size_t record_bytes,
                 size_t nbytes);
    MatrixView at(const uint8_t* data) const;
};

// Throws unless the three can be those of one expert.
void check_expert(const MatrixView& gate, const MatrixView& up, const MatrixView& down);

// The three matrices of one expert.
struct ExpertLayout {
    MatrixLayout gate, up, down;
    size_t gate_offset, up_offset, down_offset, num_bytes;

    ExpertLayout(const MatrixLayout& gate_, const MatrixLayout& up_, const MatrixLayout& down_, size_t gate_at,
                 size_t up_at, size_t down_at, size_t nbytes);
    size_t hidden() const { return gate.shape.cols; }
    ExpertView at(const uint8_t* block) const;
};

}  // namespace flashgate
