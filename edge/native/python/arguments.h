// Arguments from Python. Types, ranks and memory order are checked by the array types (conversion is off), sizes by the
// functions below; the GIL is released around the work.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "../layout.h"
#include "../ops.h"

namespace flashgate::python {

namespace nb = nanobind;

template <typename T, size_t rank>
using Array = nb::ndarray<T, nb::ndim<rank>, nb::c_contig, nb::device::cpu>;
using In1 = Array<const float, 1>;
using In2 = Array<const float, 2>;
using In3 = Array<const float, 3>;
using Out1 = Array<float, 1>;
using Out2 = Array<float, 2>;
using Out3 = Array<float, 3>;
using Bytes = Array<const uint8_t, 1>;
using Rows = Array<const int32_t, 1>;

// One per process: kernels take it as an argument, only the functions for Python know that there is one.
Runtime& runtime();

inline auto strict(const char* name) { return nb::arg(name).noconvert(); }

[[noreturn]] inline void refuse(const std::string& message) { throw std::invalid_argument(message); }

inline void expect(bool holds, const char* message) {
    if (!holds) refuse(message);
}

inline void expect_size(const char* name, size_t dimension, size_t found, size_t expected) {
    if (found != expected)
        refuse(std::string(name) + " has " + std::to_string(found) + " in dimension " + std::to_string(dimension) +
               ", expected " + std::to_string(expected));
}

template <typename A>
void expect_shape(const char* name, const A& array, std::initializer_list<size_t> shape) {
    size_t dimension = 0;
    for (size_t expected : shape) {
        expect_size(name, dimension, array.shape(dimension), expected);
        ++dimension;
    }
}

inline void expect_row(int32_t row, const char* name, size_t num_rows) {
    if (row < 0 || static_cast<size_t>(row) >= num_rows)
        refuse("rows holds " + std::to_string(row) + ", " + name + " has " + std::to_string(num_rows) + " rows");
}

inline const uint8_t* aligned_bytes(const char* name, const Bytes& data, size_t num_bytes) {
    if (data.shape(0) < num_bytes)
        refuse(std::string(name) + " has " + std::to_string(data.shape(0)) + " bytes, expected " +
               std::to_string(num_bytes));
    if (reinterpret_cast<uintptr_t>(data.data()) % kMatrixAlignment)
        refuse(std::string(name) + " is not aligned to " + std::to_string(kMatrixAlignment) + " bytes");
    return data.data();
}

}  // namespace flashgate::python
