// Causal attention within each sequence, forward and backward, in f32: no score is kept, none is computed for padding.
//
// Arrays are contiguous: query, out [N, Hq, D]; key, value [N, Hk, D]; logsum [N, Hq], the logarithm of each softmax's
// denominator, from which the way back has the probabilities anew. Sequence b has the tokens starts[b] to starts[b + 1]
// of the N. A key head serves Hq / Hk query heads. DIM, a head's width D, comes with -D. One thread does a key head of a
// sequence from end to end, so the number of threads changes no bit.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

constexpr int64_t D = DIM;
const float SCALE = 1 / std::sqrt(static_cast<float>(D));

// A key head of a sequence and the query heads that it serves.
struct Place {
  int64_t start, length, query_heads, key_heads, head;
  int64_t served() const { return query_heads / key_heads; }
  int64_t key(int64_t t) const { return ((start + t) * key_heads + head) * D; }
  int64_t sum(int64_t t, int64_t s) const { return (start + t) * query_heads + head * served() + s; }
  int64_t query(int64_t t, int64_t s) const { return sum(t, s) * D; }
};

using Floats = std::vector<float>;

// [D, length] of a head's rows, so that products with a row run along the tokens.
Floats turned(const Place& at, const float* rows) {
  Floats columns(D * at.length);
  for (int64_t t = 0; t < at.length; ++t)
    for (int64_t d = 0; d < D; ++d) columns[d * at.length + t] = rows[at.key(t) + d];
  return columns;
}

// Products of a row with the first `count` tokens.
void products(const float* row, const Floats& columns, int64_t length, int64_t count, float* out) {
  std::fill_n(out, count, 0.0f);
  for (int64_t d = 0; d < D; ++d) {
    const float* column = columns.data() + d * length;
    for (int64_t j = 0; j < count; ++j) out[j] += row[d] * column[j];
  }
}

void forward_head(const Place& at, const float* query, const float* key, const float* value, float* out,
                  float* logsum) {
  const Floats keys = turned(at, key);
  Floats p(at.length);
  for (int64_t t = 0; t < at.length; ++t)
    for (int64_t s = 0; s < at.served(); ++s) {
      const int64_t count = t + 1;
      products(query + at.query(t, s), keys, at.length, count, p.data());
      float most = p[0], sum = 0;
      for (int64_t j = 1; j < count; ++j) most = std::max(most, p[j]);
      for (int64_t j = 0; j < count; ++j) sum += p[j] = std::exp((p[j] - most) * SCALE);
      float mixed[D] = {};
      for (int64_t j = 0; j < count; ++j)
        for (int64_t d = 0; d < D; ++d) mixed[d] += p[j] * value[at.key(j) + d];
      for (int64_t d = 0; d < D; ++d) out[at.query(t, s) + d] = mixed[d] / sum;
      logsum[at.sum(t, s)] = most * SCALE + std::log(sum);
    }
}

void backward_head(const Place& at, const float* query, const float* key, const float* value, const float* out,
                   const float* logsum, const float* dout, float* dquery, float* dkey, float* dvalue) {
  const Floats keys = turned(at, key), values = turned(at, value);
  Floats p(at.length), dp(at.length);
  for (int64_t t = 0; t < at.length; ++t) {
    std::fill_n(dkey + at.key(t), D, 0.0f);
    std::fill_n(dvalue + at.key(t), D, 0.0f);
  }
  for (int64_t t = 0; t < at.length; ++t)
    for (int64_t s = 0; s < at.served(); ++s) {
      const int64_t count = t + 1, own = at.query(t, s);
      products(query + own, keys, at.length, count, p.data());
      products(dout + own, values, at.length, count, dp.data());
      float along = 0;
      for (int64_t d = 0; d < D; ++d) along += dout[own + d] * out[own + d];
      const float log = logsum[at.sum(t, s)];
      for (int64_t j = 0; j < count; ++j) {
        p[j] = std::exp(p[j] * SCALE - log);
        dp[j] = p[j] * (dp[j] - along) * SCALE;  // of the score
      }
      float mixed[D] = {};
      for (int64_t j = 0; j < count; ++j) {
        const float *k = key + at.key(j), *q = query + own, *d_out = dout + own;
        float *dk = dkey + at.key(j), *dv = dvalue + at.key(j);
        for (int64_t d = 0; d < D; ++d) {
          mixed[d] += dp[j] * k[d];
          dk[d] += dp[j] * q[d];
          dv[d] += p[j] * d_out[d];
        }
      }
      std::copy_n(mixed, D, dquery + own);
    }
}

Place place(const int64_t* starts, int64_t query_heads, int64_t key_heads, int64_t n) {
  const int64_t b = n / key_heads;
  return {starts[b], starts[b + 1] - starts[b], query_heads, key_heads, n % key_heads};
}

}  // namespace

extern "C" {

void attention_forward(const float* query, const float* key, const float* value, float* out, float* logsum,
                       const int64_t* starts, int64_t sequences, int64_t query_heads, int64_t key_heads,
                       int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (int64_t n = sequences * key_heads - 1; n >= 0; --n)
    forward_head(place(starts, query_heads, key_heads, n), query, key, value, out, logsum);
}

void attention_backward(const float* query, const float* key, const float* value, const float* out,
                        const float* logsum, const float* dout, float* dquery, float* dkey, float* dvalue,
                        const int64_t* starts, int64_t sequences, int64_t query_heads, int64_t key_heads,
                        int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (int64_t n = sequences * key_heads - 1; n >= 0; --n)
    backward_head(place(starts, query_heads, key_heads, n), query, key, value, out, logsum, dout, dquery, dkey,
                  dvalue);
}
}
