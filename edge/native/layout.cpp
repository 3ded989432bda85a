#include "layout.h"

#include <stdexcept>
#include <utility>

namespace flashgate {
namespace {

void expect(bool holds, const char* message) {
    if (!holds) throw std::invalid_argument(message);
}

}  // namespace

MatrixLayout::MatrixLayout(int format, size_t rows, size_t cols, size_t group, size_t padded_cols, size_t scales_at,
                           size_t biases_at, size_t nbytes)
    : scales_offset(scales_at), biases_offset(biases_at), num_bytes(nbytes) {
    constexpr size_t kMax = size_t{1} << 31, kMaxBytes = size_t{1} << 48;
    expect(format >= 0 && format <= 4, "format is not one of 0 (f32) to 4 (4 bits)");
    expect(rows > 0 && rows < kMax && cols > 0 && cols <= padded_cols && padded_cols < kMax && nbytes < kMaxBytes,
           "rows and cols must be positive, padded_cols at least cols, all below 2**31, nbytes below 2**48");
    const bool quantised = format >= static_cast<int>(Format::kQ8);
    expect(quantised ? group > 0 && group % 32 == 0 && padded_cols % group == 0 : padded_cols % 16 == 0,
           "padded_cols must be a multiple of 16, of group where there is one, and group of 32");
    const size_t num_groups = quantised ? padded_cols / group : 0;
    shape = {static_cast<Format>(format), rows, cols, group, padded_cols, num_groups, nullptr, nullptr, nullptr};

    constexpr size_t kPairBytes[] = {8, 4, 4, 2, 1};  // of two elements
    const size_t codes_end = rows * (padded_cols / 2) * kPairBytes[format];
    const size_t side = rows * num_groups * 2;
    // No sum wraps: the offsets are at most nbytes, and `side` is below 2**60.
    expect(codes_end <= nbytes && scales_at <= nbytes && biases_at <= nbytes, "sections go beyond the bytes");
    expect(!quantised || (codes_end <= scales_at && scales_at % 2 == 0 && scales_at + side <= biases_at &&
                          biases_at % 2 == 0 && biases_at + side <= nbytes),
           "sections overlap or go beyond the bytes");
}

MatrixView MatrixLayout::at(const uint8_t* data) const {
    MatrixView view = shape;
    view.codes = data;
    view.scales = reinterpret_cast<const uint16_t*>(data + scales_offset);
    view.biases = reinterpret_cast<const uint16_t*>(data + biases_offset);
    return view;
}

ExpertLayout::ExpertLayout(const MatrixLayout& gate_, const MatrixLayout& up_, const MatrixLayout& down_,
                           size_t gate_at, size_t up_at, size_t down_at, size_t nbytes)
    : gate(gate_), up(up_), down(down_), gate_offset(gate_at), up_offset(up_at), down_offset(down_at),
      num_bytes(nbytes) {
    expect(gate.shape.rows == up.shape.rows && gate.shape.rows == down.shape.cols,
           "gate, up and down differ in the size of the expert");
    expect(gate.shape.cols == up.shape.cols && gate.shape.cols == down.shape.rows,
           "gate, up and down differ in the hidden size");
    expect(gate.shape.padded_cols == up.shape.padded_cols, "gate and up differ in padded_cols");
    for (const auto& [at, part] : {std::pair(gate_at, &gate), std::pair(up_at, &up), std::pair(down_at, &down)})
        expect(at % kMatrixAlignment == 0 && at <= nbytes && part->num_bytes <= nbytes - at,
               "a matrix is not aligned or goes beyond the block");
}

ExpertView ExpertLayout::at(const uint8_t* block) const {
    return {gate.at(block + gate_offset), up.at(block + up_offset), down.at(block + down_offset)};
}

}  // namespace flashgate
