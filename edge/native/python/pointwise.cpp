// Norms and gates.
#include "arguments.h"
#include "bind.h"

namespace flashgate::python {

using namespace nb::literals;

namespace {

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

template <void (*op)(Runtime&, const float*, const float*, float*, size_t)>
void py_gate(In1 gate, In1 x, Out1 out) {
    expect_shape("x", x, {gate.shape(0)});
    expect_shape("out", out, {gate.shape(0)});
    nb::gil_scoped_release released;
    op(runtime(), gate.data(), x.data(), out.data(), gate.shape(0));
}

}  // namespace

void bind_pointwise(nb::module_& m) {
    m.def("rms_norm", py_rms_norm, strict("x"), strict("weight"), "eps"_a, "plus_one"_a, strict("out"));
    m.def("gated_rms_norm", py_gated_rms_norm, strict("x"), strict("gate"), strict("weight"), "eps"_a, strict("out"));
    m.def("silu_mul", py_gate<silu_mul>, strict("gate"), strict("x"), strict("out"));
    m.def("scale_rows", py_scale_rows, strict("gate"), strict("x"));
    m.def("sigmoid_mul", py_gate<sigmoid_mul>, strict("gate"), strict("x"), strict("out"));
}

}  // namespace flashgate::python
