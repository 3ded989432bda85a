#include <algorithm>
#include <cmath>

#include "ops.h"
#include "tasks.h"

namespace flashgate {
namespace {

constexpr size_t kRowsPerTask = 8;
constexpr size_t kElementsPerTask = 16 * 1024;
constexpr size_t kTranscendentals = 64;  // multiply-adds that take as long as an exp and a log

float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

// log(1 + exp(x)) without overflow.
float softplus(float x) { return std::fmax(x, 0.0f) + std::log1p(std::exp(-std::fabs(x))); }

}  // namespace

void rms_norm(Runtime& rt, const float* x, const float* w, bool plus_one, float eps, float* out, size_t num_rows,
              size_t width) {
    for_pieces(rt.pool, num_rows, kRowsPerTask, 2 * width, [&](size_t begin, size_t end) {
        for (size_t i = begin * width; i < end * width; i += width)
            rt.kernels->rms_norm(x + i, w, plus_one ? 1.0f : 0.0f, eps, out + i, width);
    });
}

void gated_rms_norm(Runtime& rt, const float* x, const float* gate, const float* w, float eps, float* out,
                    size_t num_rows, size_t width) {
    for_pieces(rt.pool, num_rows, kRowsPerTask, 16 * width, [&](size_t begin, size_t end) {
        for (size_t i = begin * width; i < end * width; i += width) {
            rt.kernels->rms_norm(x + i, w, 0.0f, eps, out + i, width);
            rt.kernels->silu_mul(gate + i, out + i, out + i, width);
        }
    });
}

void silu_mul(Runtime& rt, const float* gate, const float* up, float* out, size_t n) {
    for_pieces(rt.pool, n, kElementsPerTask, 8, [&](size_t begin, size_t end) {
        rt.kernels->silu_mul(gate + begin, up + begin, out + begin, end - begin);
    });
}

void sigmoid_mul(Runtime& rt, const float* gate, const float* x, float* out, size_t n) {
    for_pieces(rt.pool, n, kElementsPerTask, 8, [&](size_t begin, size_t end) {
        rt.kernels->sigmoid_mul(gate + begin, x + begin, out + begin, end - begin);
    });
}

void scale_rows(Runtime& rt, const float* gate, float* x, size_t num_rows, size_t width) {
    for_pieces(rt.pool, num_rows, kRowsPerTask, width, [&](size_t begin, size_t end) {
        for (size_t i = begin; i < end; ++i) {
            const float scale = sigmoid(gate[i]);
            for (size_t j = i * width; j < (i + 1) * width; ++j) x[j] *= scale;
        }
    });
}

void delta_gates(Runtime& rt, const float* a, const float* b, const float* bias, const float* rate, float* g,
                 float* beta, size_t num_tokens, size_t heads) {
    for_pieces(rt.pool, num_tokens, kRowsPerTask, heads * kTranscendentals, [&](size_t begin, size_t end) {
        for (size_t t = begin; t < end; ++t)
            for (size_t h = 0; h < heads; ++h) {
                const size_t i = t * heads + h;
                g[i] = rate[h] * softplus(a[i] + bias[h]);
                beta[i] = sigmoid(b[i]);
            }
    });
}

}  // namespace flashgate
