// What each file of a variant gives to its table (table.cpp). Contracts: ../kernels.h.
#pragma once
#include "../kernels.h"
#include "simd.h"

namespace flashgate::FLASHGATE_VARIANT {

extern const Kernels kTable;

void matmul_rows(const MatrixView& w, const float* x, size_t x_stride, size_t num_tokens, float* y, size_t y_stride,
                 size_t row_begin, size_t row_end);

void matmul_tiles(const MatrixView& w, const Digits& x, float* y, size_t y_stride, size_t row_begin, size_t row_end);
void quantize(const float* x, size_t num_columns, const Digits& out, size_t token, size_t block, size_t num_blocks);

void silu_mul(const float* gate, const float* up, float* out, size_t n);
void sigmoid_mul(const float* gate, const float* x, float* out, size_t n);
void add_scaled(float* out, const float* y, float weight, size_t n);
void rms_norm(const float* x, const float* w, float offset, float eps, float* out, size_t n);
void l2_normalize(const float* x, float eps, float scale, float* out, size_t n);
void softmax(const float* x, float* out, size_t n);
uint32_t read_words(const uint32_t* words, size_t n);

void convolve(const Convolution& job, size_t channel_begin, size_t channel_end);
void delta_columns(const DeltaRule& job, size_t head, size_t column_begin, size_t column_end);
void attend(const Attention& job, size_t kv_head, size_t query_begin, size_t query_end);

}  // namespace flashgate::FLASHGATE_VARIANT
