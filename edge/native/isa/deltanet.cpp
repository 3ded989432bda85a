// Gated DeltaNet: the causal convolution in front of it, and the recurrence.
#include "table.h"

namespace flashgate::FLASHGATE_VARIANT {
namespace {

// kLanes channels (or the last `n` of them) over all tokens.
void convolve_lanes(const Convolution& job, size_t channel, size_t n) {
    const size_t history = job.width - 1;
    const auto read = [n](const float* p) { return n == kLanes ? load(p) : load_first(p, n); };
    const auto write = [n](float* p, Floats v) { n == kLanes ? store(p, v) : store_first(p, v, n); };

    Floats weight[kMaxConvWidth];
    for (size_t i = 0; i < job.width; ++i) weight[i] = read(job.weight + i * job.channels + channel);
    Floats window[kMaxConvWidth];  // the last `width` inputs, oldest first
    for (size_t i = 0; i < history; ++i) window[i] = read(job.state + i * job.channels + channel);
    for (size_t t = 0; t < job.num_tokens; ++t) {
        window[history] = read(job.x + t * job.channels + channel);
        Floats total = splat(0.0f);
        for (size_t i = 0; i < job.width; ++i) total = fma(weight[i], window[i], total);
        write(job.out + t * job.channels + channel, silu(total));
        for (size_t i = 0; i < history; ++i) window[i] = window[i + 1];
    }
    for (size_t i = 0; i < history; ++i) write(job.state + i * job.channels + channel, window[i]);
}

// Some columns of a head's state; row i begins at data + i * stride.
struct Columns {
    float* data;
    size_t stride;
};

// One token. `q` and `k` are the key head's, `v` and `y` begin at the first of the columns.
template <size_t kVectors>
inline void delta_step(Columns state, size_t key_dim, const float* q, const float* k, const float* v, float decay_,
                       float beta_, float* y) {
    const Floats decay = splat(decay_), beta = splat(beta_);
    Floats recalled[kVectors] = {};  // Sᵀk before the decay
    for (size_t i = 0; i < key_dim; ++i) {
        const Floats ki = splat(k[i]);
        const float* row = state.data + i * state.stride;
        for (size_t j = 0; j < kVectors; ++j) recalled[j] = fma(ki, load(row + j * kLanes), recalled[j]);
    }
    Floats delta[kVectors], total[kVectors] = {};
    for (size_t j = 0; j < kVectors; ++j) delta[j] = beta * (load(v + j * kLanes) - decay * recalled[j]);
    for (size_t i = 0; i < key_dim; ++i) {
        const Floats ki = splat(k[i]), qi = splat(q[i]);
        float* row = state.data + i * state.stride;
        for (size_t j = 0; j < kVectors; ++j) {
            const Floats s = fma(ki, delta[j], decay * load(row + j * kLanes));
            store(row + j * kLanes, s);
            total[j] = fma(qi, s, total[j]);
        }
    }
    for (size_t j = 0; j < kVectors; ++j) store(y + j * kLanes, total[j]);
}

void copy_columns(Columns from, Columns to, size_t num_rows, size_t width) {
    for (size_t i = 0; i < num_rows; ++i)
        memcpy(to.data + i * to.stride, from.data + i * from.stride, width * sizeof(float));
}

constexpr size_t kTileRows = 128;

// A column of the state evolves by itself. kVectors × kLanes of them over all tokens; for more than one token they are
// copied to lie together, because their rows, a power of two apart, would share a few sets of the L1 cache.
template <size_t kVectors>
void delta_vectors(const DeltaRule& job, size_t head, size_t column) {
    constexpr size_t kWidth = kVectors * kLanes;
    alignas(64) float tile[kVectors == 8 ? 1 : kTileRows * kWidth];  // 8: of one token only
    const Columns stored = {job.state + head * job.key_dim * job.value_dim + column, job.value_dim};
    const bool is_copied = kVectors < 8 && job.num_tokens > 1 && job.key_dim <= kTileRows;
    const Columns state = is_copied ? Columns{tile, kWidth} : stored;
    if (is_copied) copy_columns(stored, state, job.key_dim, kWidth);
    const size_t key_head = head / (job.value_heads / job.key_heads);
    for (size_t t = 0; t < job.num_tokens; ++t) {
        const size_t key = (t * job.key_heads + key_head) * job.key_dim, value = t * job.value_heads + head;
        const size_t at = value * job.value_dim + column;
        delta_step<kVectors>(state, job.key_dim, job.q + key, job.k + key, job.v + at, job.decay[value],
                             job.beta[value], job.out + at);
    }
    if (is_copied) copy_columns(state, stored, job.key_dim, kWidth);
}

// One column, for the few left over when the head is not a multiple of the vector.
void delta_column(const DeltaRule& job, size_t head, size_t column) {
    const size_t key_head = head / (job.value_heads / job.key_heads);
    float* const state = job.state + head * job.key_dim * job.value_dim + column;
    for (size_t t = 0; t < job.num_tokens; ++t) {
        const float* q = job.q + (t * job.key_heads + key_head) * job.key_dim;
        const float* k = job.k + (t * job.key_heads + key_head) * job.key_dim;
        const size_t at = (t * job.value_heads + head) * job.value_dim + column;
        const float decay = job.decay[t * job.value_heads + head];
        float recalled = 0, total = 0;
        for (size_t i = 0; i < job.key_dim; ++i) recalled += k[i] * state[i * job.value_dim];
        const float delta = job.beta[t * job.value_heads + head] * (job.v[at] - decay * recalled);
        for (size_t i = 0; i < job.key_dim; ++i) {
            float& s = state[i * job.value_dim];
            s = k[i] * delta + decay * s;
            total += q[i] * s;
        }
        job.out[at] = total;
    }
}

}  // namespace

void convolve(const Convolution& job, size_t channel_begin, size_t channel_end) {
    for (size_t c = channel_begin; c < channel_end; c += kLanes)
        convolve_lanes(job, c, c + kLanes <= channel_end ? kLanes : channel_end - c);
}

void delta_columns(const DeltaRule& job, size_t head, size_t column_begin, size_t column_end) {
    size_t c = column_begin;
    // One token takes whole rows of the state: it comes from memory, in one stream.
    if (kRegisters == 32 && job.num_tokens == 1)
        for (; c + 8 * kLanes <= column_end; c += 8 * kLanes) delta_vectors<8>(job, head, c);
    for (; c + 4 * kLanes <= column_end; c += 4 * kLanes) delta_vectors<4>(job, head, c);
    for (; c + kLanes <= column_end; c += kLanes) delta_vectors<1>(job, head, c);
    for (; c < column_end; ++c) delta_column(job, head, c);
}

}  // namespace flashgate::FLASHGATE_VARIANT
