#include <algorithm>
#include <cmath>
#include <cstring>

#include "buffer.h"
#include "ops.h"
#include "tasks.h"

namespace flashgate {
namespace {

constexpr float kNormEps = 1e-6f;         // of the L2 norm, fixed in the model's definition
constexpr size_t kColumnsPerTask = 64;    // of a head's state: [128, 64] floats fill two thirds of an L1 cache
constexpr size_t kChannelsPerTask = 256;  // of the convolution

}  // namespace

void causal_conv(Runtime& rt, const std::vector<Convolution>& jobs) {
    if (jobs.empty()) return;
    size_t num_tokens = 0;
    for (const Convolution& job : jobs) num_tokens += job.num_tokens;
    const size_t channels = jobs[0].channels, pieces = (channels + kChannelsPerTask - 1) / kChannelsPerTask;
    for_pieces(rt.pool, jobs.size() * pieces, 1, 4 * num_tokens * jobs[0].width * channels / (jobs.size() * pieces),
               [&](size_t first, size_t last) {
                   for (size_t i = first; i < last; ++i) {
                       const size_t begin = i % pieces * kChannelsPerTask;
                       const size_t end = std::min(channels, begin + kChannelsPerTask);
                       if (jobs[i / pieces].num_tokens > 0) rt.kernels->convolve(jobs[i / pieces], begin, end);
                   }
               });
}

void gated_delta(Runtime& rt, const DeltaShape& shape, const DeltaInputs& in, const std::vector<DeltaTokens>& sequences,
                 float* out) {
    size_t num_tokens = 0;
    for (const DeltaTokens& sequence : sequences) num_tokens += sequence.num_tokens;
    if (num_tokens == 0) return;
    const size_t num_keys = num_tokens * shape.key_heads, key_dim = shape.key_dim;
    const size_t value_width = shape.value_heads * shape.value_dim;
    const Buffer q(num_keys * key_dim), k(num_keys * key_dim), decay(num_tokens * shape.value_heads);
    const float scale = 1.0f / std::sqrt(static_cast<float>(key_dim));
    for_pieces(rt.pool, num_keys, 64, 4 * key_dim, [&](size_t begin, size_t end) {
        for (size_t i = begin; i < end; ++i) {
            const size_t from = i / shape.key_heads * in.key_stride + i % shape.key_heads * key_dim;
            rt.kernels->l2_normalize(in.q + from, kNormEps, scale, q.get() + i * key_dim, key_dim);
            rt.kernels->l2_normalize(in.k + from, kNormEps, 1.0f, k.get() + i * key_dim, key_dim);
        }
    });
    for (size_t i = 0; i < num_tokens * shape.value_heads; ++i) decay.get()[i] = std::exp(in.g[i]);

    // The values of a sequence lie together; those of a single token do where they are.
    const bool are_single = std::all_of(sequences.begin(), sequences.end(),
                                        [](const DeltaTokens& sequence) { return sequence.num_tokens <= 1; });
    const bool is_copied = in.value_stride != value_width && !are_single;
    const Buffer copied(is_copied ? num_tokens * value_width : 0);
    if (is_copied)
        for_pieces(rt.pool, num_tokens, 8, value_width, [&](size_t begin, size_t end) {
            for (size_t t = begin; t < end; ++t)
                std::memcpy(copied.get() + t * value_width, in.v + t * in.value_stride, value_width * sizeof(float));
        });
    const float* const v = is_copied ? copied.get() : in.v;
    const size_t value_stride = is_copied ? value_width : in.value_stride;

    std::vector<DeltaRule> jobs;
    size_t t = 0;
    for (const DeltaTokens& sequence : sequences) {
        const size_t keys = t * shape.key_heads * key_dim, values = t * shape.value_heads;
        if (sequence.num_tokens > 0)
            jobs.push_back({.q = q.get() + keys, .k = k.get() + keys, .v = v + t * value_stride,
                            .decay = decay.get() + values, .beta = in.beta + values, .state = sequence.recurrent,
                            .out = out + values * shape.value_dim, .num_tokens = sequence.num_tokens,
                            .key_heads = shape.key_heads, .value_heads = shape.value_heads, .key_dim = key_dim,
                            .value_dim = shape.value_dim});
        t += sequence.num_tokens;
    }
    const size_t columns = are_single ? shape.value_dim : kColumnsPerTask;
    const size_t pieces = (shape.value_dim + columns - 1) / columns, heads = shape.value_heads * pieces;
    for_pieces(rt.pool, jobs.size() * heads, 1, 3 * num_tokens * key_dim * columns / jobs.size(),
               [&](size_t first, size_t last) {
                   for (size_t i = first; i < last; ++i) {
                       const size_t begin = i % pieces * columns;
                       rt.kernels->delta_columns(jobs[i / heads], i % heads / pieces, begin,
                                                 std::min(shape.value_dim, begin + columns));
                   }
               });
}

void delta_net(Runtime& rt, const DeltaNet& net, const DeltaProjections& x, const std::vector<DeltaTokens>& sequences,
               float* out) {
    const DeltaShape& shape = net.shape;
    const size_t channels = shape.channels(), key_width = shape.key_heads * shape.key_dim;
    const size_t value_width = shape.value_heads * shape.value_dim;
    size_t num_tokens = 0;
    for (const DeltaTokens& sequence : sequences) num_tokens += sequence.num_tokens;
    const Buffer mixed(num_tokens * channels), y(num_tokens * value_width);
    const Buffer g(num_tokens * shape.value_heads), beta(num_tokens * shape.value_heads);

    std::vector<Convolution> convolutions;
    size_t t = 0;
    for (const DeltaTokens& sequence : sequences) {
        convolutions.push_back({x.qkv + t * channels, net.conv, sequence.conv, mixed.get() + t * channels,
                                sequence.num_tokens, channels, net.conv_width});
        t += sequence.num_tokens;
    }
    causal_conv(rt, convolutions);
    delta_gates(rt, x.a, x.b, net.bias, net.rate, g.get(), beta.get(), num_tokens, shape.value_heads);
    const DeltaInputs inputs = {mixed.get(), mixed.get() + key_width, channels, mixed.get() + 2 * key_width, channels,
                                g.get(), beta.get()};
    gated_delta(rt, shape, inputs, sequences, y.get());
    gated_rms_norm(rt, y.get(), x.z, net.norm, net.eps, out, num_tokens * shape.value_heads, shape.value_dim);
}

}  // namespace flashgate
