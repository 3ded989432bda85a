#include <algorithm>
#include <cmath>

#include "buffer.h"
#include "ops.h"
#include "tasks.h"

namespace flashgate {
namespace {

constexpr float kNormEps = 1e-6f;         // of the L2 norm, fixed in the model's definition
constexpr size_t kColumnsPerTask = 64;    // of a head's state: [128, 64] floats fill two thirds of an L1 cache
constexpr size_t kChannelsPerTask = 256;  // of the convolution

}  // namespace

void causal_conv(Runtime& rt, const Convolution& job) {
    if (job.num_tokens == 0) return;
    for_pieces(rt.pool, job.channels, kChannelsPerTask, 4 * job.num_tokens * job.width,
               [&](size_t begin, size_t end) { rt.kernels->convolve(job, begin, end); });
}

void gated_delta(Runtime& rt, const DeltaInputs& inputs, DeltaRule job) {
    if (job.num_tokens == 0) return;
    const size_t num_keys = job.num_tokens * job.key_heads;
    const Buffer q(num_keys * job.key_dim), k(num_keys * job.key_dim), decay(job.num_tokens * job.value_heads);
    const float scale = 1.0f / std::sqrt(static_cast<float>(job.key_dim));
    for_pieces(rt.pool, num_keys, 64, 4 * job.key_dim, [&](size_t begin, size_t end) {
        for (size_t i = begin * job.key_dim; i < end * job.key_dim; i += job.key_dim) {
            rt.kernels->l2_normalize(inputs.q + i, kNormEps, scale, q.get() + i, job.key_dim);
            rt.kernels->l2_normalize(inputs.k + i, kNormEps, 1.0f, k.get() + i, job.key_dim);
        }
    });
    for (size_t i = 0; i < job.num_tokens * job.value_heads; ++i) decay.get()[i] = std::exp(inputs.g[i]);
    job.q = q.get();
    job.k = k.get();
    job.decay = decay.get();

    const size_t columns = job.num_tokens == 1 ? job.value_dim : kColumnsPerTask;
    const size_t pieces = (job.value_dim + columns - 1) / columns;
    for_pieces(rt.pool, job.value_heads * pieces, 1, 3 * job.num_tokens * job.key_dim * columns,
               [&](size_t first, size_t last) {
                   for (size_t i = first; i < last; ++i) {
                       const size_t begin = i % pieces * columns;
                       rt.kernels->delta_columns(job, i / pieces, begin,
                                                 std::min(job.value_dim, begin + columns));
                   }
               });
}

}  // namespace flashgate
