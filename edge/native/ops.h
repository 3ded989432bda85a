// The kernels over whole arrays: work is cut into tasks here, arithmetic is in isa/. Sizes are checked by the caller.
// Shapes, contracts and formulas stand in edge/kernels.py and edge/reference.py.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels.h"
#include "thread_pool.h"

namespace flashgate {

struct Runtime {
    ThreadPool pool;
    const Kernels* kernels;
};

struct ExpertView {
    MatrixView gate, up, down;
};

// y [num_tokens, w.rows] = x wᵀ.
struct Product {
    MatrixView w;
    float* y;
};

// Products of one x with matrices of its width; at least one.
void matmuls(Runtime& rt, const std::vector<Product>& products, const float* x, size_t num_tokens);

// The tokens of one expert, and where its outputs go.
struct ExpertTokens {
    ExpertView expert;
    const int32_t* rows;  // of x, or null: the first num_tokens
    size_t num_tokens;
    float* y;  // [num_tokens, hidden]
};

// y = down(silu(gate x) * up x) for each of some experts, whose hidden size is x's width.
void expert_ffn(Runtime& rt, const std::vector<ExpertTokens>& experts, const float* x);

// indices ascend within a token; weights are the softmax over all experts, renormalised over the chosen ones.
void route(Runtime& rt, const float* logits, size_t num_tokens, size_t num_experts, size_t k, int32_t* indices,
           float* weights);

// Of one width and number of channels, each with its own state.
void causal_conv(Runtime& rt, const std::vector<Convolution>& jobs);

struct DeltaShape {
    size_t key_heads, value_heads, key_dim, value_dim;

    size_t channels() const { return 2 * key_heads * key_dim + value_heads * value_dim; }
};

// The next tokens of one sequence, and its state.
struct DeltaTokens {
    size_t num_tokens;
    float* conv;       // [width - 1, channels]
    float* recurrent;  // [value_heads, key_dim, value_dim]
};

// Of all tokens, sequence after sequence. A stride is what lies between two tokens.
struct DeltaInputs {
    const float *q, *k;  // [num_tokens, key_heads, key_dim], neither normalised
    size_t key_stride;
    const float* v;  // [num_tokens, value_heads, value_dim]
    size_t value_stride;
    const float *g, *beta;  // [num_tokens, value_heads]; g is the log of the decay
};
// out: [num_tokens, value_heads, value_dim]. No two sequences share a state.
void gated_delta(Runtime& rt, const DeltaShape& shape, const DeltaInputs& in, const std::vector<DeltaTokens>& sequences,
                 float* out);
// g = rate * softplus(a + bias), beta = sigmoid(b), per token and head; all [num_tokens, heads] but rate and bias.
void delta_gates(Runtime& rt, const float* a, const float* b, const float* bias, const float* rate, float* g,
                 float* beta, size_t num_tokens, size_t heads);

// What lies between the projections of a Gated DeltaNet layer.
struct DeltaNet {
    DeltaShape shape;
    size_t conv_width;
    const float* conv;         // [conv_width, channels]
    const float *bias, *rate;  // [value_heads]
    const float* norm;         // [value_dim]
    float eps;
};
struct DeltaProjections {
    const float* qkv;     // [num_tokens, channels]
    const float* z;       // [num_tokens, value_heads, value_dim]
    const float *b, *a;   // [num_tokens, value_heads]
};
// causal_conv, delta_gates, gated_delta and gated_rms_norm, one after the other. out: as z.
void delta_net(Runtime& rt, const DeltaNet& net, const DeltaProjections& x, const std::vector<DeltaTokens>& sequences,
               float* out);

void attention(Runtime& rt, const Attention& job);

void rms_norm(Runtime& rt, const float* x, const float* w, bool plus_one, float eps, float* out, size_t num_rows,
              size_t width);
void gated_rms_norm(Runtime& rt, const float* x, const float* gate, const float* w, float eps, float* out,
                    size_t num_rows, size_t width);
void silu_mul(Runtime& rt, const float* gate, const float* up, float* out, size_t n);
void sigmoid_mul(Runtime& rt, const float* gate, const float* x, float* out, size_t n);
// Row i of x times sigmoid(gate[i]), in place.
void scale_rows(Runtime& rt, const float* gate, float* x, size_t num_rows, size_t width);

// Reads every word on all threads and does nothing else: the rate of this is the limit of a kernel that streams weights.
uint32_t read_ram(Runtime& rt, const uint32_t* words, size_t n);

}  // namespace flashgate
