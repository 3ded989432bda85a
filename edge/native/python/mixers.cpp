// Token mixers: attention, and what lies between the projections of a Gated DeltaNet layer.
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "arguments.h"
#include "bind.h"

namespace flashgate::python {

using namespace nb::literals;

namespace {

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

}  // namespace

void bind_mixers(nb::module_& m) {
    nb::class_<PyDeltaNet>(m, "DeltaNet")
        .def(nb::init<In2, In1, In1, In1, float, size_t, size_t>(), strict("conv"), strict("bias"), strict("rate"),
             strict("norm"), "eps"_a, "key_heads"_a, "key_dim"_a)
        .def("advance", &PyDeltaNet::advance, strict("qkv"), strict("z"), strict("b"), strict("a"), strict("states"),
             strict("out"));
    m.def("causal_conv", py_causal_conv, strict("x"), strict("weight"), strict("state"), strict("out"));
    m.def("gated_delta", py_gated_delta, strict("q"), strict("k"), strict("v"), strict("g"), strict("beta"),
          strict("state"), strict("out"));
    m.def("attention", py_attention, strict("q"), strict("k"), strict("v"), "start"_a, strict("out"));
    m.def("delta_gates", py_delta_gates, strict("a"), strict("b"), strict("bias"), strict("rate"), strict("g"),
          strict("beta"));
}

}  // namespace flashgate::python
