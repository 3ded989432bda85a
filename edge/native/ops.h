// The kernels over whole arrays: work is cut into tasks here, arithmetic is in isa/. Sizes are checked by the caller.
// Shapes, contracts and formulas stand in edge/kernels.py and edge/reference.py.
#pragma once
#include <cstddef>
#include <cstdint>

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

void matmul(Runtime& rt, const MatrixView& w, const float* x, size_t num_tokens, float* y);

// The tokens of one expert.
struct ExpertTokens {
    ExpertView expert;
    const int32_t* rows;  // of x, or null: the first num_tokens
    size_t num_tokens;
};

// Experts of one layout: y [sum of num_tokens, hidden], expert after expert.
void expert_ffn_grouped(Runtime& rt, const ExpertTokens* experts, size_t num_experts, const float* x, float* y);

void scatter_add(Runtime& rt, float* out, const int32_t* rows, const float* weights, const float* y, size_t num_rows,
                 size_t width);
// indices ascend within a token; weights are the softmax over all experts, renormalised over the chosen ones.
void route(Runtime& rt, const float* logits, size_t num_tokens, size_t num_experts, size_t k, int32_t* indices,
           float* weights);

void causal_conv(Runtime& rt, const Convolution& job);

struct DeltaInputs {
    const float *q, *k;  // neither normalised
    const float* g;      // log of the decay
};
void gated_delta(Runtime& rt, const DeltaInputs& inputs, DeltaRule job);
// g = rate * softplus(a + bias), beta = sigmoid(b), per token and head; all [num_tokens, heads] but rate and bias.
void delta_gates(Runtime& rt, const float* a, const float* b, const float* bias, const float* rate, float* g,
                 float* beta, size_t num_tokens, size_t heads);

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
