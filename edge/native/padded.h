// Rows of floats widened with zeros to the stored width of a matrix; a copy only where the widths differ.
#pragma once
#include <cstring>

#include "buffer.h"

namespace flashgate {

class Padded {
public:
    Padded(const float* x, size_t num_rows, size_t width, size_t padded_width) : data_(x), stride_(padded_width) {
        if (width == padded_width) return;
        copy_ = Buffer(num_rows * padded_width);
        for (size_t i = 0; i < num_rows; ++i) {
            float* row = copy_.get() + i * padded_width;
            std::memcpy(row, x + i * width, width * sizeof(float));
            std::memset(row + width, 0, (padded_width - width) * sizeof(float));
        }
        data_ = copy_.get();
    }
    const float* data() const { return data_; }
    size_t stride() const { return stride_; }

private:
    Buffer copy_;
    const float* data_;
    size_t stride_;
};

}  // namespace flashgate
