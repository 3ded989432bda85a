// The gated delta rule token by token, forward and backward, in f32: a head's state stays in the first cache.
//
// S_t = exp(g_t) S_(t-1) + k_t u_t', u_t = b_t (v_t - r_t), r_t = exp(g_t) S_(t-1)' k_t, o_t = S_t' q_t; S_0 = 0,
// with query and key at length 1 and the query times 1 / sqrt(K). KEY and VALUE, a head's widths, come with -D.
// Arrays are contiguous: mixed [N, 2 Hk K + Hv V] holds queries, keys and values; decay (g) and beta [N, Hv];
// out [N, Hv, V]; sequence b has the tokens starts[b] to starts[b + 1] of the N. A key head serves Hv / Hk value heads.
// One thread does a key head of a sequence from end to end, so the number of threads changes no bit.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>

namespace {

constexpr int64_t K = KEY, V = VALUE;
constexpr int64_t CHUNK = 16;  // tokens between two kept states, from which backward computes those between anew
constexpr float EPS = 1e-6f;

using Key = float[K];
using Value = float[V];
using State = float[K][V];

struct Shape {
  const int64_t* starts;
  int64_t sequences, key_heads, value_heads;
  int64_t served() const { return value_heads / key_heads; }
  int64_t width() const { return 2 * key_heads * K + value_heads * V; }
  int64_t length(int64_t sequence) const { return starts[sequence + 1] - starts[sequence]; }
  // Of kept states before a sequence: no more than the sequences before it have.
  int64_t chunks_before(int64_t sequence) const { return starts[sequence] / CHUNK + sequence; }
};

// A key head of a sequence: where its parts of `mixed` stand.
struct Place {
  Shape shape;
  int64_t sequence, head;
  int64_t length() const { return shape.length(sequence); }
  int64_t token(int64_t t) const { return shape.starts[sequence] + t; }
  int64_t query(int64_t t) const { return token(t) * shape.width() + head * K; }
  int64_t key(int64_t t) const { return query(t) + shape.key_heads * K; }
  int64_t value(int64_t t, int64_t s) const {
    return token(t) * shape.width() + 2 * shape.key_heads * K + value_head(s) * V;
  }
  int64_t value_head(int64_t s) const { return head * shape.served() + s; }
  int64_t gate(int64_t t, int64_t s) const { return token(t) * shape.value_heads + value_head(s); }
  int64_t state(int64_t chunk, int64_t s) const {
    return ((shape.chunks_before(sequence) + chunk) * shape.value_heads + value_head(s)) * K * V;
  }
};

// y = x * scale / |x|; what x was multiplied by.
float normalise(const float* x, float scale, Key y) {
  float sum = 0;
  for (int64_t k = 0; k < K; ++k) sum += x[k] * x[k];
  const float factor = 1 / std::sqrt(sum + EPS);
  for (int64_t k = 0; k < K; ++k) y[k] = x[k] * factor * scale;
  return factor;
}

// The gradient of x from that of y = x * scale / |x|.
void normalise_backward(const Key y, const Key dy, float scale, float factor, float* dx) {
  float along = 0;
  for (int64_t k = 0; k < K; ++k) along += y[k] * dy[k];
  along /= scale * scale;
  for (int64_t k = 0; k < K; ++k) dx[k] = factor * scale * (dy[k] - y[k] * along);
}

// What the state before the token says at its key, decayed.
void recall(const State S, float kept, const Key k, Value r) {
  Value sums[4] = {};
  for (int64_t i = 0; i < K; i += 4)
    for (int64_t j = 0; j < 4; ++j)
      for (int64_t v = 0; v < V; ++v) sums[j][v] += k[i + j] * S[i + j][v];
  for (int64_t v = 0; v < V; ++v) r[v] = kept * ((sums[0][v] + sums[1][v]) + (sums[2][v] + sums[3][v]));
}

// next = kept * S + k u'. `next` may be S.
void write(const State S, float kept, const Key k, const Value u, State next) {
  for (int64_t i = 0; i < K; ++i)
    for (int64_t v = 0; v < V; ++v) next[i][v] = kept * S[i][v] + k[i] * u[v];
}

void read(const State S, const Key q, float* out) {
  Value sums[4] = {};
  for (int64_t i = 0; i < K; i += 4)
    for (int64_t j = 0; j < 4; ++j)
      for (int64_t v = 0; v < V; ++v) sums[j][v] += q[i + j] * S[i + j][v];
  for (int64_t v = 0; v < V; ++v) out[v] = (sums[0][v] + sums[1][v]) + (sums[2][v] + sums[3][v]);
}

float query_scale() { return 1 / std::sqrt(static_cast<float>(K)); }

void forward_head(const Place& at, const float* mixed, const float* decay, const float* beta, float* out,
                  float* states) {
  const int64_t served = at.shape.served();
  const std::unique_ptr<State[]> S(new State[served]());
  for (int64_t t = 0; t < at.length(); ++t) {
    Key q, k;
    normalise(mixed + at.query(t), query_scale(), q);
    normalise(mixed + at.key(t), 1, k);
    for (int64_t s = 0; s < served; ++s) {
      if (t % CHUNK == 0) std::copy_n(&S[s][0][0], K * V, states + at.state(t / CHUNK, s));
      const float kept = std::exp(decay[at.gate(t, s)]), b = beta[at.gate(t, s)];
      const float* value = mixed + at.value(t, s);
      Value r, u;
      recall(S[s], kept, k, r);
      for (int64_t v = 0; v < V; ++v) u[v] = b * (value[v] - r[v]);
      write(S[s], kept, k, u, S[s]);
      read(S[s], q, out + (at.token(t) * at.shape.value_heads + at.value_head(s)) * V);
    }
  }
}

// A chunk's tokens, and what the forward pass had there.
struct Chunk {
  Key q[CHUNK], k[CHUNK], dq[CHUNK], dk[CHUNK];
  float q_factor[CHUNK], k_factor[CHUNK];
  Value r[CHUNK], u[CHUNK];
  State before[CHUNK];
};

struct Gradients {
  float *mixed, *decay, *beta;
};

// Fills r, u and the states before each token of value head s.
void replay(const Place& at, int64_t first, int64_t count, int64_t s, const float* mixed, const float* decay,
            const float* beta, const float* states, Chunk& c) {
  std::copy_n(states + at.state(first / CHUNK, s), K * V, &c.before[0][0][0]);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t gate = at.gate(first + i, s);
    const float kept = std::exp(decay[gate]), b = beta[gate];
    const float* value = mixed + at.value(first + i, s);
    recall(c.before[i], kept, c.k[i], c.r[i]);
    for (int64_t v = 0; v < V; ++v) c.u[i][v] = b * (value[v] - c.r[i][v]);
    if (i + 1 < count) write(c.before[i], kept, c.k[i], c.u[i], c.before[i + 1]);
  }
}

// Takes dS from after the token to before it.
void backward_token(const Place& at, int64_t t, int64_t i, int64_t s, const float* mixed, float kept, float b,
                    const float* dout, Chunk& c, State dS, const Gradients& d) {
  const float *q = c.q[i], *k = c.k[i], *u = c.u[i], *r = c.r[i], *value = mixed + at.value(t, s);
  const State& before = c.before[i];
  Value du = {};
  Key from_write;
  float u_dout = 0;
  for (int64_t v = 0; v < V; ++v) u_dout += u[v] * dout[v];
  for (int64_t n = 0; n < K; ++n) {
    float sum = 0;
    for (int64_t v = 0; v < V; ++v) {
      dS[n][v] += q[n] * dout[v];
      du[v] += k[n] * dS[n][v];
      sum += dS[n][v] * u[v];
    }
    from_write[n] = sum;
  }
  Value dr;
  float dbeta = 0, dr_r = 0;
  for (int64_t v = 0; v < V; ++v) {
    d.mixed[at.value(t, s) + v] = b * du[v];
    dr[v] = -b * du[v];
    dbeta += du[v] * (value[v] - r[v]);
    dr_r += dr[v] * r[v];
  }
  Value through = {};
  for (int64_t n = 0; n < K; ++n) {
    float to_query = 0, to_key = 0;
    for (int64_t v = 0; v < V; ++v) {
      to_query += before[n][v] * dout[v];
      to_key += before[n][v] * dr[v];
      through[v] += before[n][v] * dS[n][v];
      dS[n][v] = kept * (dS[n][v] + k[n] * dr[v]);
    }
    c.dq[i][n] += kept * to_query + k[n] * u_dout;
    c.dk[i][n] += kept * to_key + from_write[n];
  }
  float dkept = 0;
  for (int64_t v = 0; v < V; ++v) dkept += through[v];
  d.decay[at.gate(t, s)] = kept * dkept + dr_r;
  d.beta[at.gate(t, s)] = dbeta;
}

void backward_head(const Place& at, const float* mixed, const float* decay, const float* beta, const float* states,
                   const float* dout, const Gradients& d) {
  const int64_t served = at.shape.served();
  const std::unique_ptr<State[]> dS(new State[served]());
  const std::unique_ptr<Chunk> c(new Chunk);
  for (int64_t first = (at.length() - 1) / CHUNK * CHUNK; first >= 0; first -= CHUNK) {
    const int64_t count = std::min(CHUNK, at.length() - first);
    for (int64_t i = 0; i < count; ++i) {
      c->q_factor[i] = normalise(mixed + at.query(first + i), query_scale(), c->q[i]);
      c->k_factor[i] = normalise(mixed + at.key(first + i), 1, c->k[i]);
      std::fill_n(c->dq[i], K, 0.0f);
      std::fill_n(c->dk[i], K, 0.0f);
    }
    for (int64_t s = 0; s < served; ++s) {
      replay(at, first, count, s, mixed, decay, beta, states, *c);
      for (int64_t i = count - 1; i >= 0; --i) {
        const int64_t gate = at.gate(first + i, s);
        const float* dout_token = dout + (at.token(first + i) * at.shape.value_heads + at.value_head(s)) * V;
        backward_token(at, first + i, i, s, mixed, std::exp(decay[gate]), beta[gate], dout_token, *c, dS[s], d);
      }
    }
    for (int64_t i = 0; i < count; ++i) {
      normalise_backward(c->q[i], c->dq[i], query_scale(), c->q_factor[i], d.mixed + at.query(first + i));
      normalise_backward(c->k[i], c->dk[i], 1, c->k_factor[i], d.mixed + at.key(first + i));
    }
  }
}

}  // namespace

extern "C" {

// out, and states [N / CHUNK + B, Hv, K, V]: those before each chunk.
void delta_rule_forward(const float* mixed, const float* decay, const float* beta, float* out, float* states,
                        const int64_t* starts, int64_t sequences, int64_t key_heads, int64_t value_heads,
                        int threads) {
  const Shape shape{starts, sequences, key_heads, value_heads};
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (int64_t n = sequences * key_heads - 1; n >= 0; --n)
    forward_head(Place{shape, n / key_heads, n % key_heads}, mixed, decay, beta, out, states);
}

void delta_rule_backward(const float* mixed, const float* decay, const float* beta, const float* states,
                         const float* dout, float* dmixed, float* ddecay, float* dbeta, const int64_t* starts,
                         int64_t sequences, int64_t key_heads, int64_t value_heads, int threads) {
  const Shape shape{starts, sequences, key_heads, value_heads};
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (int64_t n = sequences * key_heads - 1; n >= 0; --n)
    backward_head(Place{shape, n / key_heads, n % key_heads}, mixed, decay, beta, states, dout,
                  Gradients{dmixed, ddecay, dbeta});
}
}
