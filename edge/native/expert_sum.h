// The outputs of routed experts, each times its share, added to their tokens' rows.
//
// A sum of floats depends on its order, and the order in which experts come on what a cache happened to hold. So they
// are added in rising order in whatever order they come: an output that is early waits.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "buffer.h"
#include "ops.h"

namespace flashgate {

class ExpertSum {
public:
    // x and out: [any, width]. Expert i takes the rows [ends[i - 1], ends[i]) of `rows`, distinct ones, with as many
    // shares. The arrays outlive this.
    ExpertSum(const float* x, float* out, size_t width, const int32_t* rows, const float* shares,
              std::vector<size_t> ends)
        : x_(x), out_(out), width_(width), rows_(rows), shares_(shares), ends_(std::move(ends)),
          outputs_(ends_.size()), has_come_(ends_.size()) {}

    ExpertSum(const ExpertSum&) = delete;
    ExpertSum& operator=(const ExpertSum&) = delete;

    struct Arrival {
        size_t index;
        ExpertView expert;
    };

    size_t size() const { return ends_.size(); }
    bool has_come(size_t index) const { return has_come_[index]; }

    // Computes some experts, each of which comes once, and adds all whose turn it is.
    void add(Runtime& rt, const std::vector<Arrival>& arrivals);

private:
    size_t begin(size_t index) const { return index ? ends_[index - 1] : 0; }
    void add_columns(const Kernels& kernels, size_t first, size_t last, size_t column, size_t count) const;

    const float* x_;
    float* out_;
    size_t width_;
    const int32_t* rows_;
    const float* shares_;
    std::vector<size_t> ends_;
    std::vector<Buffer<>> outputs_;  // of those that have come and wait
    std::vector<bool> has_come_;
    size_t next_ = 0;  // whose turn it is
};

}  // namespace flashgate
