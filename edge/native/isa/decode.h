// Stored weights to floats, one format at a time.
//
// start() points a Row at one stored row; decode(column, out) yields kStep columns as kStep / kLanes vectors. Quantised
// rows are told the scale and bias of a group, open(), before columns of that group are decoded.
#pragma once
#include "../matrix.h"
#include "simd.h"

namespace flashgate::FLASHGATE_VARIANT {

template <Format format>
struct Row;

template <>
struct Row<Format::kF32> {
    static constexpr size_t kStep = 16;
    static constexpr bool kGrouped = false;
    static constexpr size_t bytes(size_t columns) { return 4 * columns; }
    const float* weights;

    void start(const MatrixView& w, size_t row) { weights = (const float*)w.codes + row * w.padded_cols; }
    void open(float, float) {}
    const void* address(size_t column) const { return weights + column; }
    void decode(size_t column, Floats* out) const {
        for (size_t i = 0; i < kStep / kLanes; ++i) out[i] = load(weights + column + i * kLanes);
    }
};

template <>
struct Row<Format::kF16> {
    static constexpr size_t kStep = 16;
    static constexpr bool kGrouped = false;
    static constexpr size_t bytes(size_t columns) { return 2 * columns; }
    const uint16_t* weights;

    void start(const MatrixView& w, size_t row) { weights = (const uint16_t*)w.codes + row * w.padded_cols; }
    void open(float, float) {}
    const void* address(size_t column) const { return weights + column; }
    void decode(size_t column, Floats* out) const {
        for (size_t i = 0; i < kStep / kLanes; ++i) out[i] = from_f16(weights + column + i * kLanes);
    }
};

template <>
struct Row<Format::kBF16> {
    static constexpr size_t kStep = 16;
    static constexpr bool kGrouped = false;
    static constexpr size_t bytes(size_t columns) { return 2 * columns; }
    const uint16_t* weights;

    void start(const MatrixView& w, size_t row) { weights = (const uint16_t*)w.codes + row * w.padded_cols; }
    void open(float, float) {}
    const void* address(size_t column) const { return weights + column; }
    void decode(size_t column, Floats* out) const {
        for (size_t i = 0; i < kStep / kLanes; ++i) out[i] = from_bf16(weights + column + i * kLanes);
    }
};

// value = scale * code + bias, with one rounding per variant's fma.
struct Affine {
    Floats scale, bias;

    void open(float s, float b) {
        scale = splat(s);
        bias = splat(b);
    }
    Floats value(Ints code) const { return fma(scale, __builtin_convertvector(code, Floats), bias); }
};

template <>
struct Row<Format::kQ8> : Affine {
    static constexpr size_t kStep = 32;
    static constexpr bool kGrouped = true;
    static constexpr size_t bytes(size_t columns) { return columns; }
    const uint8_t* codes;

    void start(const MatrixView& w, size_t row) { codes = w.codes + row * w.padded_cols; }
    const void* address(size_t column) const { return codes + column; }
    void decode(size_t column, Floats* out) const {
        for (size_t i = 0; i < kStep / kLanes; ++i) out[i] = value(load_bytes(codes + column + i * kLanes));
    }
};

// Per 32 columns 16 bytes: byte j holds column j in its low half and column j + 16 in its high half.
template <>
struct Row<Format::kQ4> : Affine {
    static constexpr size_t kStep = 32;
    static constexpr bool kGrouped = true;
    static constexpr size_t bytes(size_t columns) { return columns / 2; }
    const uint8_t* codes;

    void start(const MatrixView& w, size_t row) { codes = w.codes + row * w.padded_cols / 2; }
    const void* address(size_t column) const { return codes + column / 2; }
#if defined(__AVX512F__)
    Floats values;  // of the 16 codes: decoding is a permutation, whose index ignores all but the low four bits

    void open(float s, float b) {
        Affine::open(s, b);
        const Floats all = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        values = fma(scale, all, bias);
    }
    void decode(size_t column, Floats* out) const {
        const __m512i pair = _mm512_cvtepu8_epi32(load_as<__m128i>(codes + column / 2));
        out[0] = _mm512_permutexvar_ps(pair, values);
        out[1] = _mm512_permutexvar_ps(_mm512_srli_epi32(pair, 4), values);
    }
#else
    void decode(size_t column, Floats* out) const {
        constexpr size_t kHalf = 16 / kLanes;
        for (size_t i = 0; i < kHalf; ++i) {
            const Ints pair = load_bytes(codes + column / 2 + i * kLanes);
            out[i] = value(pair & splat(15));
            out[i + kHalf] = value(pair >> 4);
        }
    }
#endif
};

}  // namespace flashgate::FLASHGATE_VARIANT
