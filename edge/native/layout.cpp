#include "layout.h"

#include <stdexcept>
#include <utility>

namespace flashgate {
namespace {

void expect(bool holds, const char* message) {
    if (!holds) throw std::invalid_argument(message);
}

}  // namespace

MatrixLayout::MatrixLayout(int format, size_t rows, size_t cols, size_t group, size_t padded_cols,
                           size_t record_bytes, size_t nbytes)
    : num_bytes(nbytes) {
    constexpr size_t kMax = size_t{1} << 31, kMaxBytes = size_t{1} << 48;
    expect(format >= 0 && format <= 6, "format is not one of 0 (f32) to 6 (2 bits)");
    expect(rows > 0 && rows < kMax && cols > 0 && cols <= padded_cols && padded_cols < kMax && nbytes < kMaxBytes,
           "rows and cols must be positive, padded_cols at least cols, all below 2**31, nbytes below 2**48");
    const Format form = static_cast<Format>(format);
    shape = {form, rows, cols, group, padded_cols, record_bytes, nullptr};

    // No product wraps: rows and columns are below 2**31, and a column takes at most 8 bytes.
    if (!is_quantized(form)) {
        expect(padded_cols % 16 == 0 && group == 0 && record_bytes == 0,
               "padded_cols of floats must be a multiple of 16, and there is no group and no record");
        expect(rows * padded_cols * (form == Format::kF32 ? 4 : 2) <= nbytes, "rows go beyond nbytes");
        return;
    }
    expect(group > 0 && group % kBlockCols == 0 && padded_cols % group == 0,
           "padded_cols must be a multiple of group, and group of 64");
    expect(record_bytes == kSidesBytes + group / kBlockCols * block_bytes(form),
           "record_bytes is not what a group of this format takes");
    expect((rows + kTileRows - 1) / kTileRows * shape.tile_bytes() <= nbytes, "records go beyond nbytes");
}

MatrixView MatrixLayout::at(const uint8_t* data) const {
    MatrixView view = shape;
    view.data = data;
    return view;
}

void check_expert(const MatrixView& gate, const MatrixView& up, const MatrixView& down) {
    expect(gate.rows == up.rows && gate.rows == down.cols, "gate, up and down differ in the size of the expert");
    expect(gate.cols == up.cols && gate.cols == down.rows, "gate, up and down differ in the hidden size");
    expect(gate.padded_cols == up.padded_cols, "gate and up differ in padded_cols");
    expect(is_quantized(gate.format) == is_quantized(up.format),
           "one of gate and up is quantised, the other is not");
}

ExpertLayout::ExpertLayout(const MatrixLayout& gate_, const MatrixLayout& up_, const MatrixLayout& down_,
                           size_t gate_at, size_t up_at, size_t down_at, size_t nbytes)
    : gate(gate_), up(up_), down(down_), gate_offset(gate_at), up_offset(up_at), down_offset(down_at),
      num_bytes(nbytes) {
    check_expert(gate.shape, up.shape, down.shape);
    for (const auto& [at, part] : {std::pair(gate_at, &gate), std::pair(up_at, &up), std::pair(down_at, &down)})
        expect(at % kMatrixAlignment == 0 && at <= nbytes && part->num_bytes <= nbytes - at,
               "a matrix is not aligned or goes beyond the block");
}

ExpertView ExpertLayout::at(const uint8_t* block) const {
    return {gate.at(block + gate_offset), up.at(block + up_offset), down.at(block + down_offset)};
}

}  // namespace flashgate
