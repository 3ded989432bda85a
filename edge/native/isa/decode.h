// Weights of the float formats, one format at a time: start() points a Row at one stored row; decode(column, out)
// yields kStep columns as kStep / kLanes vectors.
#pragma once
#include "../matrix.h"
#include "simd.h"

namespace flashgate::FLASHGATE_VARIANT {

template <Format format>
struct Row;

template <>
struct Row<Format::kF32> {
    static constexpr size_t kStep = 16;
    static constexpr size_t bytes(size_t columns) { return 4 * columns; }
    const float* weights;

    void start(const MatrixView& w, size_t row) { weights = (const float*)w.data + row * w.padded_cols; }
    const void* address(size_t column) const { return weights + column; }
    void decode(size_t column, Floats* out) const {
        for (size_t i = 0; i < kStep / kLanes; ++i) out[i] = load(weights + column + i * kLanes);
    }
};

template <>
struct Row<Format::kF16> {
    static constexpr size_t kStep = 16;
    static constexpr size_t bytes(size_t columns) { return 2 * columns; }
    const uint16_t* weights;

    void start(const MatrixView& w, size_t row) { weights = (const uint16_t*)w.data + row * w.padded_cols; }
    const void* address(size_t column) const { return weights + column; }
    void decode(size_t column, Floats* out) const {
        for (size_t i = 0; i < kStep / kLanes; ++i) out[i] = from_f16(weights + column + i * kLanes);
    }
};

template <>
struct Row<Format::kBF16> {
    static constexpr size_t kStep = 16;
    static constexpr size_t bytes(size_t columns) { return 2 * columns; }
    const uint16_t* weights;

    void start(const MatrixView& w, size_t row) { weights = (const uint16_t*)w.data + row * w.padded_cols; }
    const void* address(size_t column) const { return weights + column; }
    void decode(size_t column, Floats* out) const {
        for (size_t i = 0; i < kStep / kLanes; ++i) out[i] = from_bf16(weights + column + i * kLanes);
    }
};

}  // namespace flashgate::FLASHGATE_VARIANT
