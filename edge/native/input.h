// Activations in the form that a matrix's kernels take: digits where it is quantised, else floats; both padded with
// zeros to its stored width.
#pragma once
#include <cstddef>

#include "buffer.h"
#include "kernels.h"

namespace flashgate {

class Input {
public:
    // Room for num_tokens activations of w's width. set() must be called for all of their columns.
    Input(const MatrixView& w, size_t num_tokens);

    // Takes columns [column, column + count) of one token. `column` is a multiple of 64, and so is `count` but for a
    // token's last columns.
    void set(const Kernels& kernels, size_t token, size_t column, const float* x, size_t count);

    // y[t * y_stride + r] for the rows [begin, end) of a matrix of the same form and width; `begin` is a multiple of 16.
    void multiply(const Kernels& kernels, const MatrixView& w, float* y, size_t y_stride, size_t begin,
                  size_t end) const;

    size_t num_tokens() const { return digits_.num_tokens; }

private:
    size_t cols_, padded_cols_;
    Buffer<> floats_;
    Buffer<int8_t> bytes_;
    Buffer<> scales_;
    Digits digits_;
};

}  // namespace flashgate
