#include <atomic>

#include "ops.h"
#include "tasks.h"

namespace flashgate {

uint32_t read_ram(Runtime& rt, const uint32_t* words, size_t n) {
    constexpr size_t kWordsPerTask = 64 * 1024;
    std::atomic<uint32_t> total{0};
    for_pieces(rt.pool, n, kWordsPerTask, 1, [&](size_t begin, size_t end) {
        total.fetch_xor(rt.kernels->read_words(words + begin, end - begin), std::memory_order_relaxed);
    });
    return total;
}

}  // namespace flashgate
