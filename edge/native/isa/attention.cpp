// Causal attention by online softmax: keys are visited in blocks that begin at multiples of kKeys, so that a query's
// result does not depend on which queries are computed beside it.
#include "table.h"

namespace flashgate::FLASHGATE_VARIANT {
namespace {

constexpr size_t kKeys = 64;
constexpr size_t kTile = kRegisters == 32 ? 4 : 2;  // queries × keys, and queries × vectors, held in registers

struct Query {
    const float* q;
    float* out;       // the values seen so far, weighted relative to `high`
    size_t num_keys;  // that it may see
    float high;       // the greatest score so far
    float total;      // sum of exp(score - high)
};

struct Keys {
    const float *k, *v;  // of the head, key 0
    size_t stride, dim;
    float scale;
};

template <size_t kQ, size_t kK>
void score_tile(const Query* queries, const Keys& keys, size_t key, float (*scores)[kKeys], size_t column) {
    Floats acc[kQ][kK] = {};
    size_t d = 0;
    for (; d + kLanes <= keys.dim; d += kLanes) {
        Floats q[kQ];
        for (size_t i = 0; i < kQ; ++i) q[i] = load(queries[i].q + d);
        for (size_t j = 0; j < kK; ++j) {
            const Floats k = load(keys.k + (key + j) * keys.stride + d);
            for (size_t i = 0; i < kQ; ++i) acc[i][j] = fma(q[i], k, acc[i][j]);
        }
    }
    for (size_t i = 0; i < kQ; ++i)
        for (size_t j = 0; j < kK; ++j) {
            float rest = 0;
            for (size_t e = d; e < keys.dim; ++e) rest += queries[i].q[e] * keys.k[(key + j) * keys.stride + e];
            scores[i][column + j] = (sum(acc[i][j]) + rest) * keys.scale;
        }
}

template <size_t kQ>
void score_block(const Query* queries, const Keys& keys, size_t key, size_t begin, size_t end,
                 float (*scores)[kKeys]) {
    size_t j = begin;
    for (; j + kTile <= end; j += kTile) score_tile<kQ, kTile>(queries, keys, key + j, scores, j);
    for (; j < end; ++j) score_tile<kQ, 1>(queries, keys, key + j, scores, j);
}

// Turns scores into weights relative to the new greatest score, and rescales what was summed before.
void reweigh(Query& query, size_t dim, size_t count, float* scores) {
    float high = query.high;
    for (size_t j = 0; j < count; ++j) high = scores[j] > high ? scores[j] : high;
    for (size_t j = count; j < kKeys; ++j) scores[j] = -INFINITY;
    Floats total = splat(0.0f);
    for (size_t j = 0; j < kKeys; j += kLanes) {
        const Floats weight = exp(load(scores + j) - splat(high));
        store(scores + j, weight);
        total = total + weight;
    }
    const float shrink = exp(splat(query.high - high))[0];
    query.total = query.total * shrink + sum(total);
    query.high = high;
    if (shrink != 1.0f)
        for (size_t d = 0; d < dim; ++d) query.out[d] *= shrink;
}

template <size_t kQ, size_t kV>
void add_vectors(const Query* queries, const Keys& keys, size_t key, size_t begin, size_t end,
                 const float (*weights)[kKeys], size_t d) {
    Floats acc[kQ][kV];
    for (size_t i = 0; i < kQ; ++i)
        for (size_t e = 0; e < kV; ++e) acc[i][e] = load(queries[i].out + d + e * kLanes);
    for (size_t j = begin; j < end; ++j) {
        const float* v = keys.v + (key + j) * keys.stride + d;
        for (size_t i = 0; i < kQ; ++i) {
            const Floats weight = splat(weights[i][j]);
            for (size_t e = 0; e < kV; ++e) acc[i][e] = fma(weight, load(v + e * kLanes), acc[i][e]);
        }
    }
    for (size_t i = 0; i < kQ; ++i)
        for (size_t e = 0; e < kV; ++e) store(queries[i].out + d + e * kLanes, acc[i][e]);
}

// out += weights[begin ... end) × values
template <size_t kQ>
void add_values(const Query* queries, const Keys& keys, size_t key, size_t begin, size_t end,
                const float (*weights)[kKeys]) {
    size_t d = 0;
    for (; d + kTile * kLanes <= keys.dim; d += kTile * kLanes)
        add_vectors<kQ, kTile>(queries, keys, key, begin, end, weights, d);
    for (; d + kLanes <= keys.dim; d += kLanes) add_vectors<kQ, 1>(queries, keys, key, begin, end, weights, d);
    for (; d < keys.dim; ++d)
        for (size_t i = 0; i < kQ; ++i)
            for (size_t j = begin; j < end; ++j)
                queries[i].out[d] += weights[i][j] * keys.v[(key + j) * keys.stride + d];
}

size_t visible(const Query& query, size_t key) {
    if (query.num_keys <= key) return 0;
    return query.num_keys - key < kKeys ? query.num_keys - key : kKeys;
}

// Adjacent queries, which see the same keys or a few more each.
template <size_t kQ>
void attend_block(Query* queries, const Keys& keys, size_t key) {
    alignas(64) float scores[kQ][kKeys];
    const size_t shared = visible(queries[0], key);
    score_block<kQ>(queries, keys, key, 0, shared, scores);
    for (size_t i = 0; i < kQ; ++i) {
        const size_t count = visible(queries[i], key);
        score_block<1>(queries + i, keys, key, shared, count, scores + i);
        if (count > 0) reweigh(queries[i], keys.dim, count, scores[i]);
    }
    add_values<kQ>(queries, keys, key, 0, shared, scores);
    for (size_t i = 0; i < kQ; ++i)
        add_values<1>(queries + i, keys, key, shared, visible(queries[i], key), scores + i);
}

}  // namespace

void attend(const Attention& job, size_t kv_head, size_t query_begin, size_t query_end) {
    const size_t group = job.query_heads / job.kv_heads;
    const size_t count = query_end - query_begin;
    const Keys keys = {job.k + kv_head * job.dim, job.v + kv_head * job.dim, job.kv_heads * job.dim, job.dim,
                       1.0f / sqrtf((float)job.dim)};
    Query queries[kMaxQueries];
    for (size_t i = 0; i < count; ++i) {
        const size_t t = (query_begin + i) / group, head = kv_head * group + (query_begin + i) % group;
        const size_t at = (t * job.query_heads + head) * job.dim;
        queries[i] = {job.q + at, job.out + at, job.start + t + 1, -INFINITY, 0.0f};
        memset(job.out + at, 0, job.dim * sizeof(float));
    }
    const size_t last = queries[count - 1].num_keys;
    for (size_t key = 0; key < last; key += kKeys) {
        size_t i = 0;
        for (; i + kTile <= count; i += kTile) attend_block<kTile>(queries + i, keys, key);
        for (; i < count; ++i) attend_block<1>(queries + i, keys, key);
    }
    for (size_t i = 0; i < count; ++i) {
        const float inverse = 1.0f / queries[i].total;
        for (size_t d = 0; d < job.dim; ++d) queries[i].out[d] *= inverse;
    }
}

}  // namespace flashgate::FLASHGATE_VARIANT
