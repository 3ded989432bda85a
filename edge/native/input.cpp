#include "input.h"

#include <cstring>

namespace flashgate {

Input::Input(const MatrixView& w, size_t num_tokens) : cols_(w.cols), padded_cols_(w.padded_cols), digits_{} {
    digits_.num_tokens = num_tokens;
    if (!is_quantized(w.format)) {
        floats_ = Buffer(num_tokens * padded_cols_);
        return;
    }
    const size_t num_scales = num_tokens * w.num_blocks();
    bytes_ = Buffer<int8_t>(num_scales * kDigitBytes);
    scales_ = Buffer(2 * num_scales);
    digits_ = {bytes_.get(), scales_.get(), scales_.get() + num_scales, num_tokens};
}

void Input::set(const Kernels& kernels, size_t token, size_t column, const float* x, size_t count) {
    const bool is_last = column + count == cols_;
    if (digits_.digits) {
        const size_t end = is_last ? padded_cols_ : column + count;
        return kernels.quantize(x, count, digits_, token, column / kBlockCols, (end - column) / kBlockCols);
    }
    float* row = floats_.get() + token * padded_cols_;
    std::memcpy(row + column, x, count * sizeof(float));
    if (is_last) std::memset(row + cols_, 0, (padded_cols_ - cols_) * sizeof(float));
}

void Input::multiply(const Kernels& kernels, const MatrixView& w, float* y, size_t y_stride, size_t begin,
                     size_t end) const {
    if (digits_.digits) kernels.matmul_tiles(w, digits_, y, y_stride, begin, end);
    else kernels.matmul_rows(w, floats_.get(), padded_cols_, num_tokens(), y, y_stride, begin, end);
}

}  // namespace flashgate
