#include "expert_sum.h"

#include <algorithm>

#include "tasks.h"

namespace flashgate {
namespace {

constexpr size_t kColumnsPerTask = 512;

}  // namespace

void ExpertSum::add(Runtime& rt, const std::vector<Arrival>& arrivals) {
    std::vector<ExpertTokens> jobs;
    for (const auto& [index, expert] : arrivals) {
        const size_t num_tokens = ends_[index] - begin(index);
        outputs_[index] = Buffer<>(num_tokens * width_);
        has_come_[index] = true;
        jobs.push_back({expert, rows_ + begin(index), num_tokens, outputs_[index].get()});
    }
    expert_ffn(rt, jobs, x_);

    const size_t first = next_;
    while (next_ < size() && has_come_[next_]) ++next_;
    // Cut by columns, so that each element meets the experts in their order on one thread.
    for_pieces(rt.pool, width_, kColumnsPerTask, next_ > first ? ends_[next_ - 1] - begin(first) : 0,
               [&](size_t column, size_t end) { add_columns(*rt.kernels, first, next_, column, end - column); });
    for (size_t index = first; index < next_; ++index) outputs_[index] = Buffer<>();
}

void ExpertSum::add_columns(const Kernels& kernels, size_t first, size_t last, size_t column, size_t count) const {
    for (size_t index = first; index < last; ++index) {
        const float* y = outputs_[index].get() + column;
        for (size_t i = begin(index); i < ends_[index]; ++i, y += width_)
            kernels.add_scaled(out_ + static_cast<size_t>(rows_[i]) * width_ + column, y, shares_[i], count);
    }
}

}  // namespace flashgate
