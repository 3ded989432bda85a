// A scratch array, aligned for the widest vector.
#pragma once
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

namespace flashgate {

template <typename T = float>
class Buffer {
public:
    Buffer() = default;
    explicit Buffer(size_t count) {
        const size_t bytes = (count * sizeof(T) + 63) / 64 * 64;
        data_.reset(static_cast<T*>(std::aligned_alloc(64, bytes ? bytes : 64)));
        if (!data_) throw std::bad_alloc();
    }
    T* get() const { return data_.get(); }

private:
    struct Free {
        void operator()(T* p) const { std::free(p); }
    };
    std::unique_ptr<T, Free> data_;
};

}  // namespace flashgate
