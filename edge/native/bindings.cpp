// The only file that knows Python. Types, ranks and memory order are checked by the argument types (conversion is off),
// sizes by the functions below; the GIL is released around the work.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "crc32c.h"
#include "expert_sum.h"
#include "layout.h"
#include "ops.h"
#include "reader.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace flashgate;

namespace {

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

// One per process: kernels take it as an argument, only this file knows that there is one.
Runtime& runtime() {
    static size_t count;
    static Runtime& only = *new Runtime{ThreadPool(1), supported_kernels(&count)[0]};
    return only;
}

[[noreturn]] void refuse(const std::string& message) { throw std::invalid_argument(message); }

void expect(bool holds, const char* message) {
    if (!holds) refuse(message);
}

void expect_size(const char* name, size_t dimension, size_t found, size_t expected) {
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

void expect_row(int32_t row, const char* name, size_t num_rows) {
    if (row < 0 || static_cast<size_t>(row) >= num_rows)
        refuse("rows holds " + std::to_string(row) + ", " + name + " has " + std::to_string(num_rows) + " rows");
}

const uint8_t* aligned_bytes(const char* name, const Bytes& data, size_t num_bytes) {
    if (data.shape(0) < num_bytes)
        refuse(std::string(name) + " has " + std::to_string(data.shape(0)) + " bytes, expected " +
               std::to_string(num_bytes));
    if (reinterpret_cast<uintptr_t>(data.data()) % kMatrixAlignment)
        refuse(std::string(name) + " is not aligned to " + std::to_string(kMatrixAlignment) + " bytes");
    return data.data();
}

void py_matmul(In2 x, Bytes data, const MatrixLayout& layout, Out2 out) {
    expect_shape("x", x, {x.shape(0), layout.shape.cols});
    expect_shape("out", out, {x.shape(0), layout.shape.rows});
    const MatrixView w = layout.at(aligned_bytes("data", data, layout.num_bytes));
    nb::gil_scoped_release released;
    matmuls(runtime(), {{w, out.data()}}, x.data(), x.shape(0));
}

// Stored matrices of one width, checked and kept alive once for many products.
class PyProjections {
public:
    PyProjections(std::vector<Bytes> data, const std::vector<MatrixLayout>& layouts) : data_(std::move(data)) {
        expect(!layouts.empty(), "there is no matrix");
        expect_size("data", 0, data_.size(), layouts.size());
        for (size_t i = 0; i < data_.size(); ++i) {
            expect_size("layouts", 1, layouts[i].shape.cols, layouts[0].shape.cols);
            views_.push_back(layouts[i].at(aligned_bytes("data", data_[i], layouts[i].num_bytes)));
            num_rows_ += layouts[i].shape.rows;
        }
    }

    // out: the products one after the other.
    void multiply(In2 x, Out1 out) const {
        const size_t num_tokens = x.shape(0);
        expect_shape("x", x, {num_tokens, views_[0].cols});
        expect_shape("out", out, {num_tokens * num_rows_});
        std::vector<Product> products;
        float* y = out.data();
        for (const MatrixView& w : views_) {
            products.push_back({w, y});
            y += num_tokens * w.rows;
        }
        nb::gil_scoped_release released;
        matmuls(runtime(), products, x.data(), num_tokens);
    }

private:
    std::vector<Bytes> data_;
    std::vector<MatrixView> views_;
    size_t num_rows_ = 0;
};

// The three matrices of a gated MLP, and a fourth of one row whose product scales the result if there is one.
class PyGatedMlp {
public:
    PyGatedMlp(std::vector<Bytes> data, const std::vector<MatrixLayout>& layouts) : data_(std::move(data)) {
        expect(layouts.size() == 3 || layouts.size() == 4, "layouts are not those of gate, up, down and perhaps scale");
        expect_size("data", 0, data_.size(), layouts.size());
        const auto view = [&](size_t i) {
            return layouts[i].at(aligned_bytes("data", data_[i], layouts[i].num_bytes));
        };
        mlp_ = {view(0), view(1), view(2)};
        check_expert(mlp_.gate, mlp_.up, mlp_.down);
        if (layouts.size() == 4) {
            scale_ = view(3);
            expect(scale_->rows == 1 && scale_->cols == mlp_.gate.cols, "scale is not one row of the hidden size");
        }
    }

    void multiply(In2 x, Out2 out) const {
        const size_t num_tokens = x.shape(0), width = mlp_.gate.cols;
        expect_shape("x", x, {num_tokens, width});
        expect_shape("out", out, {num_tokens, width});
        nb::gil_scoped_release released;
        expert_ffn(runtime(), {{mlp_, nullptr, num_tokens, out.data()}}, x.data());
        if (!scale_) return;
        const Buffer<> scale(num_tokens);
        matmuls(runtime(), {{*scale_, scale.get()}}, x.data(), num_tokens);
        scale_rows(runtime(), scale.get(), out.data(), num_tokens, width);
    }

private:
    std::vector<Bytes> data_;
    ExpertView mlp_;
    std::optional<MatrixView> scale_;
};

// An ExpertSum that keeps its arrays alive and knows experts by their numbers.
class PyExpertSum {
public:
    PyExpertSum(In2 x, Out2 out, std::vector<int32_t> experts, const std::vector<size_t>& ends, Rows rows, In1 shares,
                const ExpertLayout& layout)
        : x_(std::move(x)), out_(std::move(out)), rows_(std::move(rows)), shares_(std::move(shares)), layout_(layout),
          experts_(std::move(experts)), sum_(x_.data(), out_.data(), layout.hidden(), rows_.data(), shares_.data(), ends) {
        expect_shape("x", x_, {x_.shape(0), layout.hidden()});
        expect_shape("out", out_, {x_.shape(0), layout.hidden()});
        expect(x_.data() + x_.size() <= out_.data() || out_.data() + out_.size() <= x_.data(), "out overlaps x");
        expect(std::is_sorted(experts_.begin(), experts_.end(), std::less_equal<>()), "experts do not rise");
        expect_size("ends", 0, ends.size(), experts_.size());
        expect_shape("shares", shares_, {rows_.shape(0)});
        size_t begin = 0;
        for (const size_t end : ends) {
            expect(begin <= end && end <= rows_.shape(0), "ends do not rise up to the number of rows");
            for (size_t i = begin; i < end; ++i) {
                expect_row(rows_.data()[i], "x", x_.shape(0));
                expect(i == begin || rows_.data()[i - 1] < rows_.data()[i], "the rows of an expert do not rise");
            }
            begin = end;
        }
        expect_size("rows", 0, rows_.shape(0), begin);
    }

    void add(const std::vector<std::pair<int32_t, Bytes>>& batch) {
        std::vector<ExpertSum::Arrival> arrivals;
        for (const auto& [expert, block] : batch) {
            const auto at = std::lower_bound(experts_.begin(), experts_.end(), expert);
            const size_t index = static_cast<size_t>(at - experts_.begin());
            const auto is_same = [&](const ExpertSum::Arrival& other) { return other.index == index; };
            if (at == experts_.end() || *at != expert || sum_.has_come(index) ||
                std::any_of(arrivals.begin(), arrivals.end(), is_same))
                refuse("expert " + std::to_string(expert) + " is not due");
            arrivals.push_back({index, layout_.at(aligned_bytes("block", block, layout_.num_bytes))});
        }
        nb::gil_scoped_release released;
        sum_.add(runtime(), arrivals);
    }

private:
    In2 x_;
    Out2 out_;
    Rows rows_;
    In1 shares_;
    ExpertLayout layout_;
    std::vector<int32_t> experts_;
    ExpertSum sum_;
};

uint32_t py_read_ram(Bytes data) {
    const uint8_t* words = aligned_bytes("data", data, 0);
    nb::gil_scoped_release released;
    return read_ram(runtime(), reinterpret_cast<const uint32_t*>(words), data.shape(0) / sizeof(uint32_t));
}

void py_route(In2 logits, size_t k, Array<int32_t, 2> indices, Out2 weights) {
    const size_t num_tokens = logits.shape(0), num_experts = logits.shape(1);
    if (k < 1 || k > num_experts)
        refuse("k is " + std::to_string(k) + ", expected 1 to " + std::to_string(num_experts));
    expect_shape("indices", indices, {num_tokens, k});
    expect_shape("weights", weights, {num_tokens, k});
    nb::gil_scoped_release released;
    route(runtime(), logits.data(), num_tokens, num_experts, k, indices.data(), weights.data());
}

void expect_conv_width(const char* name, size_t width) {
    if (width < 1 || width > kMaxConvWidth)
        refuse(std::string(name) + " has width " + std::to_string(width) + ", expected 1 to " +
               std::to_string(kMaxConvWidth));
}

void py_causal_conv(In2 x, In2 weight, Out2 state, Out2 out) {
    const Convolution job = {x.data(),   weight.data(), state.data(),   out.data(),
                             x.shape(0), x.shape(1),    weight.shape(0)};
    expect_conv_width("weight", job.width);
    expect_shape("weight", weight, {job.width, job.channels});
    expect_shape("state", state, {job.width - 1, job.channels});
    expect_shape("out", out, {job.num_tokens, job.channels});
    nb::gil_scoped_release released;
    causal_conv(runtime(), {job});
}

void py_gated_delta(In3 q, In3 k, In3 v, In2 g, In2 beta, Out3 state, Out3 out) {
    const size_t num_tokens = q.shape(0), key_heads = q.shape(1), key_dim = q.shape(2);
    const size_t value_heads = v.shape(1), value_dim = v.shape(2);
    expect(key_heads > 0 && value_heads % key_heads == 0, "v must have a multiple of the heads of q");
    expect_shape("k", k, {num_tokens, key_heads, key_dim});
    expect_shape("v", v, {num_tokens, value_heads, value_dim});
    expect_shape("g", g, {num_tokens, value_heads});
    expect_shape("beta", beta, {num_tokens, value_heads});
    expect_shape("state", state, {value_heads, key_dim, value_dim});
    expect_shape("out", out, {num_tokens, value_heads, value_dim});
    const DeltaShape shape = {key_heads, value_heads, key_dim, value_dim};
    const DeltaInputs inputs = {q.data(), k.data(), key_heads * key_dim, v.data(), value_heads * value_dim,
                                g.data(), beta.data()};
    nb::gil_scoped_release released;
    gated_delta(runtime(), shape, inputs, {{num_tokens, nullptr, state.data()}}, out.data());
}

// The weights of a Gated DeltaNet layer between its projections.
class PyDeltaNet {
public:
    PyDeltaNet(In2 conv, In1 bias, In1 rate, In1 norm, float eps, size_t key_heads, size_t key_dim)
        : conv_(std::move(conv)), bias_(std::move(bias)), rate_(std::move(rate)), norm_(std::move(norm)) {
        const DeltaShape shape = {key_heads, bias_.shape(0), key_dim, norm_.shape(0)};
        net_ = {shape, conv_.shape(0), conv_.data(), bias_.data(), rate_.data(), norm_.data(), eps};
        expect(key_heads > 0 && shape.value_heads > 0 && shape.value_heads % key_heads == 0,
               "bias must have a multiple of key_heads");
        expect_conv_width("conv", net_.conv_width);
        expect_shape("conv", conv_, {net_.conv_width, shape.channels()});
        expect_shape("rate", rate_, {shape.value_heads});
    }

    using State = std::tuple<size_t, Out2, Out3>;

    void advance(In2 qkv, In2 z, In2 b, In2 a, const std::vector<State>& states, Out2 out) const {
        const size_t num_tokens = qkv.shape(0), heads = net_.shape.value_heads;
        expect_shape("qkv", qkv, {num_tokens, net_.shape.channels()});
        expect_shape("z", z, {num_tokens, heads * net_.shape.value_dim});
        expect_shape("b", b, {num_tokens, heads});
        expect_shape("a", a, {num_tokens, heads});
        expect_shape("out", out, {num_tokens, heads * net_.shape.value_dim});
        std::vector<DeltaTokens> sequences;
        std::vector<std::pair<const float*, const float*>> written;
        size_t left = num_tokens;
        for (const auto& [count, conv, recurrent] : states) {
            expect_shape("conv", conv, {net_.conv_width - 1, net_.shape.channels()});
            expect_shape("recurrent", recurrent, {heads, net_.shape.key_dim, net_.shape.value_dim});
            expect(count <= left, "the states have more tokens than qkv");
            left -= count;
            sequences.push_back({count, conv.data(), recurrent.data()});
            written.emplace_back(conv.data(), conv.data() + conv.size());
            written.emplace_back(recurrent.data(), recurrent.data() + recurrent.size());
        }
        expect(left == 0, "the states have fewer tokens than qkv");
        std::sort(written.begin(), written.end());
        for (size_t i = 1; i < written.size(); ++i)
            expect(written[i - 1].second <= written[i].first, "two states overlap");
        nb::gil_scoped_release released;
        delta_net(runtime(), net_, {qkv.data(), z.data(), b.data(), a.data()}, sequences, out.data());
    }

private:
    In2 conv_;
    In1 bias_, rate_, norm_;
    DeltaNet net_;
};

void py_attention(In3 q, In3 k, In3 v, size_t start, Out3 out) {
    const size_t num_tokens = q.shape(0), query_heads = q.shape(1), dim = q.shape(2);
    const size_t capacity = k.shape(0), kv_heads = k.shape(1);
    expect(kv_heads > 0 && query_heads % kv_heads == 0, "q must have a multiple of the heads of k");
    expect_shape("k", k, {capacity, kv_heads, dim});
    expect_shape("v", v, {capacity, kv_heads, dim});
    expect_shape("out", out, {num_tokens, query_heads, dim});
    if (start > capacity || num_tokens > capacity - start)
        refuse("k has room for " + std::to_string(capacity) + " tokens, start + tokens is " +
               std::to_string(start + num_tokens));
    const Attention job = {q.data(), k.data(), v.data(), out.data(), num_tokens, start, query_heads, kv_heads, dim};
    nb::gil_scoped_release released;
    if (num_tokens > 0) attention(runtime(), job);
}

void py_rms_norm(In2 x, In1 weight, float eps, bool plus_one, Out2 out) {
    expect_shape("weight", weight, {x.shape(1)});
    expect_shape("out", out, {x.shape(0), x.shape(1)});
    nb::gil_scoped_release released;
    rms_norm(runtime(), x.data(), weight.data(), plus_one, eps, out.data(), x.shape(0), x.shape(1));
}

void py_gated_rms_norm(In2 x, In2 gate, In1 weight, float eps, Out2 out) {
    expect_shape("gate", gate, {x.shape(0), x.shape(1)});
    expect_shape("weight", weight, {x.shape(1)});
    expect_shape("out", out, {x.shape(0), x.shape(1)});
    nb::gil_scoped_release released;
    gated_rms_norm(runtime(), x.data(), gate.data(), weight.data(), eps, out.data(), x.shape(0), x.shape(1));
}

void py_scale_rows(In1 gate, Out2 x) {
    expect_shape("gate", gate, {x.shape(0)});
    nb::gil_scoped_release released;
    scale_rows(runtime(), gate.data(), x.data(), x.shape(0), x.shape(1));
}

void py_delta_gates(In2 a, In2 b, In1 bias, In1 rate, Out2 g, Out2 beta) {
    const size_t num_tokens = a.shape(0), heads = a.shape(1);
    expect_shape("b", b, {num_tokens, heads});
    expect_shape("bias", bias, {heads});
    expect_shape("rate", rate, {heads});
    expect_shape("g", g, {num_tokens, heads});
    expect_shape("beta", beta, {num_tokens, heads});
    nb::gil_scoped_release released;
    delta_gates(runtime(), a.data(), b.data(), bias.data(), rate.data(), g.data(), beta.data(), num_tokens, heads);
}

template <void (*op)(Runtime&, const float*, const float*, float*, size_t)>
void py_gate(In1 gate, In1 x, Out1 out) {
    expect_shape("x", x, {gate.shape(0)});
    expect_shape("out", out, {gate.shape(0)});
    nb::gil_scoped_release released;
    op(runtime(), gate.data(), x.data(), out.data(), gate.shape(0));
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

// A Reader that keeps the destination of each read alive until it has been waited for. Touched under the GIL only.
class PyReader {
public:
    PyReader(std::vector<std::string> paths, size_t threads, bool direct)
        : reader_(std::move(paths), threads, direct) {}
    ~PyReader() { close(); }

    void tune(size_t queue_depth, size_t part_bytes, size_t prefetch_depth) {
        expect(part_bytes > 0 && part_bytes % Reader::kAlignment == 0, "part_bytes is not a multiple of 4096");
        reader_.tune(queue_depth, part_bytes, prefetch_depth);
    }
    uint64_t read(size_t file, uint64_t offset, Array<uint8_t, 1> out, std::optional<uint32_t> crc, bool is_prefetch) {
        constexpr size_t kAlignment = Reader::kAlignment;
        if (file >= reader_.num_files())
            refuse("file is " + std::to_string(file) + ", there are " + std::to_string(reader_.num_files()));
        expect(offset % kAlignment == 0 && offset <= uint64_t{1} << 62, "offset is not a multiple of 4096 below 2**62");
        expect(out.shape(0) > 0 && out.shape(0) % kAlignment == 0, "the size of out is not a multiple of 4096");
        expect(reinterpret_cast<uintptr_t>(out.data()) % kAlignment == 0, "out is not aligned to 4096 bytes");
        const auto urgency = is_prefetch ? Reader::Urgency::prefetch : Reader::Urgency::demand;
        const uint64_t ticket = reader_.read(file, offset, out.data(), out.shape(0), crc, urgency);
        destinations_.emplace(ticket, std::move(out));
        return ticket;
    }
    void wait(uint64_t ticket) {
        try {
            nb::gil_scoped_release released;
            reader_.wait(ticket);
        } catch (const ReadError&) {
            destinations_.erase(ticket);
            throw;
        }
        destinations_.erase(ticket);
    }
    std::vector<uint64_t> wait_any(const std::vector<uint64_t>& tickets) {
        nb::gil_scoped_release released;
        return reader_.wait_any(tickets);
    }
    bool cancel(uint64_t ticket) {
        if (!reader_.cancel(ticket)) return false;
        destinations_.erase(ticket);
        return true;
    }
    void close() {
        {
            nb::gil_scoped_release released;
            reader_.close();
        }
        destinations_.clear();
    }
    Reader& reader() { return reader_; }

private:
    Reader reader_;
    std::unordered_map<uint64_t, Array<uint8_t, 1>> destinations_;
};

}  // namespace

NB_MODULE(_native, m) {
    m.doc() = "C++ core of the edge node";
    const auto strict = [](const char* name) { return nb::arg(name).noconvert(); };

    nb::exception<ReadError>(m, "ReadError");

    nb::class_<MatrixLayout>(m, "MatrixLayout")
        .def(nb::init<int, size_t, size_t, size_t, size_t, size_t, size_t>(), nb::kw_only(), "format"_a, "rows"_a,
             "cols"_a, "group"_a, "padded_cols"_a, "record_bytes"_a, "nbytes"_a);
    using Part = const MatrixLayout&;
    nb::class_<ExpertLayout>(m, "ExpertLayout")
        .def(nb::init<Part, Part, Part, size_t, size_t, size_t, size_t>(), nb::kw_only(), "gate"_a, "up"_a, "down"_a,
             "gate_offset"_a, "up_offset"_a, "down_offset"_a, "nbytes"_a);

    nb::class_<PyProjections>(m, "Projections")
        .def(nb::init<std::vector<Bytes>, const std::vector<MatrixLayout>&>(), strict("data"), "layouts"_a)
        .def("multiply", &PyProjections::multiply, strict("x"), strict("out"));

    nb::class_<PyGatedMlp>(m, "GatedMlp")
        .def(nb::init<std::vector<Bytes>, const std::vector<MatrixLayout>&>(), strict("data"), "layouts"_a)
        .def("multiply", &PyGatedMlp::multiply, strict("x"), strict("out"));
    nb::class_<PyExpertSum>(m, "ExpertSum")
        .def(nb::init<In2, Out2, std::vector<int32_t>, const std::vector<size_t>&, Rows, In1, const ExpertLayout&>(),
             strict("x"), strict("out"), "experts"_a, "ends"_a, strict("rows"), strict("shares"), "layout"_a)
        .def("add", &PyExpertSum::add, strict("batch"));

    nb::class_<PyDeltaNet>(m, "DeltaNet")
        .def(nb::init<In2, In1, In1, In1, float, size_t, size_t>(), strict("conv"), strict("bias"), strict("rate"),
             strict("norm"), "eps"_a, "key_heads"_a, "key_dim"_a)
        .def("advance", &PyDeltaNet::advance, strict("qkv"), strict("z"), strict("b"), strict("a"), strict("states"),
             strict("out"));

    m.def("matmul", py_matmul, strict("x"), strict("data"), "layout"_a, strict("out"));
    m.def("route", py_route, strict("logits"), "k"_a, strict("indices"), strict("weights"));
    m.def("causal_conv", py_causal_conv, strict("x"), strict("weight"), strict("state"), strict("out"));
    m.def("gated_delta", py_gated_delta, strict("q"), strict("k"), strict("v"), strict("g"), strict("beta"),
          strict("state"), strict("out"));
    m.def("attention", py_attention, strict("q"), strict("k"), strict("v"), "start"_a, strict("out"));
    m.def("rms_norm", py_rms_norm, strict("x"), strict("weight"), "eps"_a, "plus_one"_a, strict("out"));
    m.def("gated_rms_norm", py_gated_rms_norm, strict("x"), strict("gate"), strict("weight"), "eps"_a, strict("out"));
    m.def("silu_mul", py_gate<silu_mul>, strict("gate"), strict("x"), strict("out"));
    m.def("scale_rows", py_scale_rows, strict("gate"), strict("x"));
    m.def("delta_gates", py_delta_gates, strict("a"), strict("b"), strict("bias"), strict("rate"), strict("g"),
          strict("beta"));
    m.def("sigmoid_mul", py_gate<sigmoid_mul>, strict("gate"), strict("x"), strict("out"));

    m.def("read_ram", py_read_ram, strict("data"));
    m.def("crc32c", py_crc32c, strict("data"), "seed"_a, "table"_a = false);
    m.def("variants", variants);
    m.def("variant", [] { return std::string(runtime().kernels->name); });
    m.def("use_variant", use_variant, "name"_a);
    m.def("set_num_threads", set_num_threads, "count"_a);
    m.def("num_threads", [] { return runtime().pool.size(); });

    using Counters = Reader::Counters;
    nb::class_<Counters>(m, "ReadCounters")
        .def_ro("demand_bytes", &Counters::demand_bytes)
        .def_ro("prefetch_bytes", &Counters::prefetch_bytes)
        .def_ro("abandoned_bytes", &Counters::abandoned_bytes)
        .def_ro("busy_seconds", &Counters::busy_seconds)
        .def_ro("demand_seconds", &Counters::demand_seconds)
        .def_ro("wait_seconds", &Counters::wait_seconds);
    nb::class_<PyReader>(m, "Reader")
        .def(nb::init<std::vector<std::string>, size_t, bool>(), "paths"_a, "threads"_a, "direct"_a)
        .def("tune", &PyReader::tune, "queue_depth"_a, "part_bytes"_a, "prefetch_depth"_a)
        .def("read", &PyReader::read, "file"_a, "offset"_a, strict("out"), "crc"_a.none(), "is_prefetch"_a)
        .def("wait", &PyReader::wait, "ticket"_a)
        .def("wait_any", &PyReader::wait_any, "tickets"_a)
        .def("is_done", [](PyReader& self, uint64_t ticket) { return self.reader().is_done(ticket); }, "ticket"_a)
        .def("promote", [](PyReader& self, uint64_t ticket) { self.reader().promote(ticket); }, "ticket"_a)
        .def("cancel", &PyReader::cancel, "ticket"_a)
        .def("abandon", [](PyReader& self, uint64_t ticket) { return self.reader().abandon(ticket); }, "ticket"_a)
        .def("close", &PyReader::close)
        .def("counters", [](PyReader& self) { return self.reader().counters(); })
        .def_prop_ro("direct", [](PyReader& self) { return self.reader().direct(); });
}
