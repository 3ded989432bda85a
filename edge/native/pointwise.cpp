#include <algorithm>

#include "ops.h"
#include "tasks.h"

namespace flashgate {
namespace {

constexpr size_t kRowsPerTask = 8;
constexpr size_t kElementsPerTask = 16 * 1024;

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

}  // namespace flashgate
