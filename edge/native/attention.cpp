#include <algorithm>

#include "ops.h"
#include "tasks.h"

namespace flashgate {

void attention(Runtime& rt, const Attention& job) {
    // Queries that share a KV head are taken together, so that a key read once serves them all; fewer at once when
    // there would not be a task for every thread. The cut does not change a result.
    const size_t queries = job.num_tokens * (job.query_heads / job.kv_heads);
    const size_t share = (queries * job.kv_heads + rt.pool.size() - 1) / rt.pool.size();
    const size_t piece = std::clamp<size_t>(share, 1, kMaxQueries);
    const size_t pieces = (queries + piece - 1) / piece;
    const size_t work = 2 * piece * job.dim * (job.start + job.num_tokens);
    for_pieces(rt.pool, job.kv_heads * pieces, 1, work, [&](size_t first, size_t last) {
        for (size_t i = first; i < last; ++i) {
            const size_t begin = i % pieces * piece;
            rt.kernels->attend(job, i / pieces, begin, std::min(queries, begin + piece));
        }
    });
}

}  // namespace flashgate
