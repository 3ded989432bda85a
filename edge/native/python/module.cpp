// The module: the process's one runtime and what can be set of it, and what the other files here add.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <vector>

#include "../crc32c.h"
#include "arguments.h"
#include "bind.h"

namespace flashgate::python {

using namespace nb::literals;

Runtime& runtime() {
    static size_t count;
    static Runtime& only = *new Runtime{ThreadPool(1), supported_kernels(&count)[0]};
    return only;
}

namespace {

uint32_t py_read_ram(Bytes data) {
    const uint8_t* words = aligned_bytes("data", data, 0);
    nb::gil_scoped_release released;
    return read_ram(runtime(), reinterpret_cast<const uint32_t*>(words), data.shape(0) / sizeof(uint32_t));
}

uint32_t py_crc32c(Bytes data, uint32_t seed, bool table) {
    nb::gil_scoped_release released;
    return (table ? crc32c_table : crc32c)(data.data(), data.shape(0), seed);
}

std::vector<std::string> variants() {
    size_t count;
    const Kernels* const* tables = supported_kernels(&count);
    std::vector<std::string> names;
    for (size_t i = 0; i < count; ++i) names.emplace_back(tables[i]->name);
    return names;
}

void use_variant(const std::string& name) {
    size_t count;
    const Kernels* const* tables = supported_kernels(&count);
    for (size_t i = 0; i < count; ++i)
        if (name == tables[i]->name) {
            runtime().kernels = tables[i];
            return;
        }
    refuse("this CPU has no kernels named " + name);
}

void set_num_threads(size_t count) {
    if (count < 1 || count > 1024) refuse("count is " + std::to_string(count) + ", expected 1 to 1024");
    nb::gil_scoped_release released;
    runtime().pool.resize(count);
}

}  // namespace

}  // namespace flashgate::python

NB_MODULE(_native, m) {
    using namespace flashgate::python;
    using namespace nanobind::literals;

    m.doc() = "C++ core of the edge node";
    bind_matrices(m);
    bind_mixers(m);
    bind_pointwise(m);
    bind_reader(m);

    m.def("read_ram", py_read_ram, strict("data"));
    m.def("crc32c", py_crc32c, strict("data"), "seed"_a, "table"_a = false);
    m.def("variants", variants);
    m.def("variant", [] { return std::string(runtime().kernels->name); });
    m.def("use_variant", use_variant, "name"_a);
    m.def("set_num_threads", set_num_threads, "count"_a);
    m.def("num_threads", [] { return runtime().pool.size(); });
}
