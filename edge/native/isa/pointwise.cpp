// Element by element, and the row reductions: norms and softmax.
#include "table.h"

namespace flashgate::FLASHGATE_VARIANT {
namespace {

template <typename Op>
inline void map2(const float* a, const float* b, float* out, size_t n, Op op) {
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(out + i, op(load(a + i), load(b + i)));
    if (i < n) store_first(out + i, op(load_first(a + i, n - i), load_first(b + i, n - i)), n - i);
}

inline float sum_of_squares(const float* x, size_t n) {
    Floats total = splat(0.0f);
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) total = fma(load(x + i), load(x + i), total);
    if (i < n) total = fma(load_first(x + i, n - i), load_first(x + i, n - i), total);
    return sum(total);
}

}  // namespace

void silu_mul(const float* gate, const float* up, float* out, size_t n) {
    map2(gate, up, out, n, [](Floats g, Floats u) { return silu(g) * u; });
}

void sigmoid_mul(const float* gate, const float* x, float* out, size_t n) {
    map2(gate, x, out, n, [](Floats g, Floats v) { return sigmoid(g) * v; });
}

void add_scaled(float* out, const float* y, float weight, size_t n) {
    map2(out, y, out, n, [w = splat(weight)](Floats o, Floats v) { return fma(w, v, o); });
}

void rms_norm(const float* x, const float* w, float offset, float eps, float* out, size_t n) {
    const Floats inverse = splat(1.0f / sqrtf(sum_of_squares(x, n) / (float)n + eps));
    map2(x, w, out, n, [inverse, o = splat(offset)](Floats v, Floats weight) { return v * inverse * (o + weight); });
}

void l2_normalize(const float* x, float eps, float scale, float* out, size_t n) {
    const Floats factor = splat(scale / sqrtf(sum_of_squares(x, n) + eps));
    map2(x, x, out, n, [factor](Floats v, Floats) { return v * factor; });
}

void softmax(const float* x, float* out, size_t n) {
    float high = x[0];
    for (size_t i = 1; i < n; ++i) high = x[i] > high ? x[i] : high;
    map2(x, x, out, n, [h = splat(high)](Floats v, Floats) { return exp(v - h); });
    Floats total = splat(0.0f);
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) total = total + load(out + i);
    if (i < n) total = total + load_first(out + i, n - i);
    map2(out, out, out, n, [inverse = splat(1.0f / sum(total))](Floats v, Floats) { return v * inverse; });
}

uint32_t read_words(const uint32_t* words, size_t n) {
    constexpr size_t kVectors = 8;
    Ints seen[kVectors] = {};
    size_t i = 0;
    for (; i + kVectors * kLanes <= n; i += kVectors * kLanes)
#pragma GCC unroll 8
        for (size_t j = 0; j < kVectors; ++j) {
            __builtin_prefetch(words + i + j * kLanes + 1024);
            seen[j] ^= load_as<Ints>(words + i + j * kLanes);
        }
    uint32_t total = 0;
    for (; i < n; ++i) total ^= words[i];
    for (size_t j = 0; j < kVectors; ++j)
        for (size_t lane = 0; lane < kLanes; ++lane) total ^= (uint32_t)seen[j][lane];
    return total;
}

}  // namespace flashgate::FLASHGATE_VARIANT
