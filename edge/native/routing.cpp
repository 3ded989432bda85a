// Which experts a token goes to.
#include <algorithm>

#include "buffer.h"
#include "ops.h"
#include "tasks.h"

namespace flashgate {
namespace {

// The k greatest, greatest first, the lower index first among equals. A NaN ranks above all, so that it reaches the
// result instead of being passed over.
void choose(const float* p, size_t n, size_t k, int32_t* chosen) {
    size_t count = 0;
    for (size_t i = 0; i < n; ++i) {
        size_t at = count;
        while (at > 0 && !(p[i] <= p[chosen[at - 1]])) --at;
        if (at == k) continue;
        if (count < k) ++count;
        for (size_t j = count - 1; j > at; --j) chosen[j] = chosen[j - 1];
        chosen[at] = static_cast<int32_t>(i);
    }
}

}  // namespace

void route(Runtime& rt, const float* logits, size_t num_tokens, size_t num_experts, size_t k, int32_t* indices,
           float* weights) {
    const Buffer<> probabilities(num_tokens * num_experts);
    for_pieces(rt.pool, num_tokens, 4, 16 * num_experts, [&](size_t begin, size_t end) {
        for (size_t t = begin; t < end; ++t) {
            float* p = probabilities.get() + t * num_experts;
            int32_t* chosen = indices + t * k;
            rt.kernels->softmax(logits + t * num_experts, p, num_experts);
            choose(p, num_experts, k, chosen);
            float total = 0;
            for (size_t i = 0; i < k; ++i) total += p[chosen[i]];
            std::sort(chosen, chosen + k);
            for (size_t i = 0; i < k; ++i) weights[t * k + i] = p[chosen[i]] / total;
        }
    });
}

}  // namespace flashgate
