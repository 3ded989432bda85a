// A scratch array of floats, aligned for the widest vector.
#pragma once
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

namespace flashgate {

class Buffer {
public:
    Buffer() = default;
    explicit Buffer(size_t num_floats) {
        const size_t bytes = (num_floats * sizeof(float) + 63) / 64 * 64;
        data_.reset(static_cast<float*>(std::aligned_alloc(64, bytes ? bytes : 64)));
        if (!data_) throw std::bad_alloc();
    }
    float* get() const { return data_.get(); }

private:
    struct Free {
        void operator()(float* p) const { std::free(p); }
    };
    std::unique_ptr<float, Free> data_;
};

}  // namespace flashgate
