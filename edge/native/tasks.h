// Cutting a range into tasks for the pool.
#pragma once
#include <algorithm>
#include <cstddef>

#include "thread_pool.h"

namespace flashgate {

// Below this many multiply-adds a fork/join costs more than it saves.
constexpr size_t kSerialWork = 32 * 1024;

// Tokens whose activations one task prepares for a matrix.
constexpr size_t kTokensPerTask = 16;

// Calls body(begin, end) over [0, n) in pieces of `piece` (the last may be shorter), in parallel if the whole is
// worth it: `work_per_item` counts multiply-adds.
template <typename Body>
void for_pieces(ThreadPool& pool, size_t n, size_t piece, size_t work_per_item, Body&& body) {
    if (n == 0) return;
    if (n <= piece || n * work_per_item < kSerialWork) return body(size_t{0}, n);
    pool.run((n + piece - 1) / piece, [&](size_t i) { body(i * piece, std::min(n, (i + 1) * piece)); });
}

}  // namespace flashgate
