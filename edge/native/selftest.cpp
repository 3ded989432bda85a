// Runs the kernels of every variant of this CPU on inputs from a file and compares with the results that the file
// expects: how a build for another CPU is tested without Python. tests/integration/kernel_vectors.py writes the file.
//
//     selftest FILE
//
// The file, little-endian: int64 number of cases; per case int64 length of its name and the name, int64 count and
// int64 sizes, int64 count and arrays, each int64 bytes and, from the next multiple of 64 on, the bytes. The last array
// is the result that is expected, f32; the one before it, one f64, the greatest relative L2 distance from it.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "buffer.h"
#include "crc32c.h"
#include "layout.h"
#include "ops.h"

using namespace flashgate;

namespace {

struct Array {
    const uint8_t* data;
    size_t num_bytes;

    template <typename T>
    const T* as() const {
        return reinterpret_cast<const T*>(data);
    }
    template <typename T>
    size_t count() const {
        return num_bytes / sizeof(T);
    }
    std::vector<float> copy() const { return {as<float>(), as<float>() + count<float>()}; }
};

struct Case {
    std::string name;
    std::vector<size_t> sizes;
    std::vector<Array> arrays;

    const Array& expected() const { return arrays.back(); }
    double limit() const { return *arrays.at(arrays.size() - 2).as<double>(); }
    const float* floats(size_t i) const { return arrays.at(i).as<float>(); }
};

class File {
public:
    explicit File(const char* path) {
        std::ifstream in(path, std::ios::binary | std::ios::ate);
        if (!in) throw std::runtime_error(std::string("cannot open ") + path);
        size_ = static_cast<size_t>(in.tellg());
        bytes_ = Buffer<uint8_t>(size_);
        in.seekg(0);
        in.read(reinterpret_cast<char*>(bytes_.get()), static_cast<std::streamsize>(size_));
    }
    std::vector<Case> cases() {
        std::vector<Case> all(number());
        for (Case& one : all) {
            const size_t length = number();
            one.name.assign(reinterpret_cast<const char*>(take(length)), length);
            one.sizes.resize(number());
            for (size_t& size : one.sizes) size = number();
            one.arrays.resize(number());
            for (Array& array : one.arrays) {
                array.num_bytes = number();
                at_ = (at_ + 63) / 64 * 64;
                array.data = take(array.num_bytes);
            }
        }
        return all;
    }

private:
    const uint8_t* take(size_t num_bytes) {
        if (at_ > size_ || num_bytes > size_ - at_) throw std::runtime_error("the file ends early");
        const uint8_t* data = bytes_.get() + at_;
        at_ += num_bytes;
        return data;
    }
    size_t number() {
        int64_t value;
        std::memcpy(&value, take(sizeof(value)), sizeof(value));
        return static_cast<size_t>(value);
    }

    Buffer<uint8_t> bytes_;
    size_t size_ = 0, at_ = 0;
};

MatrixLayout matrix_layout(const size_t* sizes) {
    return {static_cast<int>(sizes[0]), sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6]};
}

void run_matmul(Runtime& rt, const Case& c, float* out) {
    const MatrixLayout layout = matrix_layout(c.sizes.data());
    matmuls(rt, {{layout.at(c.arrays[0].data), out}}, c.floats(1), c.arrays[1].count<float>() / layout.shape.cols);
}

void run_expert_ffn(Runtime& rt, const Case& c, float* out) {
    const size_t* sizes = c.sizes.data();
    const ExpertLayout layout(matrix_layout(sizes), matrix_layout(sizes + 7), matrix_layout(sizes + 14), sizes[21],
                              sizes[22], sizes[23], sizes[24]);
    const Array& rows = c.arrays[2];
    expert_ffn(rt, {{layout.at(c.arrays[0].data), rows.as<int32_t>(), rows.count<int32_t>(), out}}, c.floats(1));
}

void run_attention(Runtime& rt, const Case& c, float* out) {
    const auto& s = c.sizes;  // tokens, start, query heads, kv heads, dim
    attention(rt, {c.floats(0), c.floats(1), c.floats(2), out, s[0], s[1], s[2], s[3], s[4]});
}

void run_gated_delta(Runtime& rt, const Case& c, float* out) {
    const auto& s = c.sizes;  // tokens, key heads, value heads, key dim, value dim
    std::vector<float> state = c.arrays[5].copy();
    const DeltaShape shape = {s[1], s[2], s[3], s[4]};
    const DeltaInputs inputs = {c.floats(0), c.floats(1), s[1] * s[3], c.floats(2), s[2] * s[4], c.floats(3), c.floats(4)};
    gated_delta(rt, shape, inputs, {{s[0], nullptr, state.data()}}, out);
}

void run_causal_conv(Runtime& rt, const Case& c, float* out) {
    std::vector<float> state = c.arrays[2].copy();
    causal_conv(rt, {{c.floats(0), c.floats(1), state.data(), out, c.sizes[0], c.sizes[1], c.sizes[2]}});
}

void run_rms_norm(Runtime& rt, const Case& c, float* out) {
    rms_norm(rt, c.floats(0), c.floats(1), false, 1e-6f, out, c.sizes[0], c.sizes[1]);
}

void run_silu_mul(Runtime& rt, const Case& c, float* out) {
    silu_mul(rt, c.floats(0), c.floats(1), out, c.sizes[0]);
}

void run_route(Runtime& rt, const Case& c, float* out) {
    std::vector<int32_t> indices(c.sizes[0] * c.sizes[2]);
    route(rt, c.floats(0), c.sizes[0], c.sizes[1], c.sizes[2], indices.data(), out);
}

void run_crc32c(Runtime&, const Case& c, float* out) {
    const uint32_t crc = crc32c(c.arrays[0].data, c.arrays[0].num_bytes, 0);
    out[0] = static_cast<float>(crc >> 16);
    out[1] = static_cast<float>(crc & 0xffff);
}

const std::map<std::string, std::function<void(Runtime&, const Case&, float*)>> kRuns = {
    {"matmul", run_matmul},           {"expert_ffn", run_expert_ffn}, {"attention", run_attention},
    {"gated_delta", run_gated_delta}, {"causal_conv", run_causal_conv}, {"rms_norm", run_rms_norm},
    {"silu_mul", run_silu_mul},       {"route", run_route},           {"crc32c", run_crc32c},
};

double distance(const std::vector<float>& found, const float* expected) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < found.size(); ++i) {
        difference += std::pow(static_cast<double>(found[i]) - expected[i], 2);
        norm += std::pow(static_cast<double>(expected[i]), 2);
    }
    return std::sqrt(difference / norm);
}

// Whether every case came out as expected.
bool run_all(Runtime& rt, const std::vector<Case>& cases) {
    bool is_good = true;
    for (const Case& one : cases) {
        std::vector<float> out(one.expected().count<float>());
        kRuns.at(one.name)(rt, one, out.data());
        const double error = distance(out, one.expected().as<float>());
        const bool is_close = error <= one.limit();  // a NaN is not
        is_good &= is_close;
        std::printf("%s %s %s %.2g\n", is_close ? "ok" : "WRONG", rt.kernels->name, one.name.c_str(), error);
    }
    return is_good;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) return std::fprintf(stderr, "usage: selftest FILE\n"), 2;
    try {
        File file(argv[1]);
        const std::vector<Case> cases = file.cases();
        size_t count;
        const Kernels* const* variants = supported_kernels(&count);
        Runtime rt{ThreadPool(2), variants[0]};
        bool is_good = !cases.empty();
        for (size_t i = 0; i < count; ++i) {
            rt.kernels = variants[i];
            is_good &= run_all(rt, cases);
        }
        return is_good ? 0 : 1;
    } catch (const std::exception& error) {
        return std::fprintf(stderr, "selftest: %s\n", error.what()), 2;
    }
}
