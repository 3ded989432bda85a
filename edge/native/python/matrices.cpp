// Products with stored matrices, alone and as the parts of a layer, and which experts they are.
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../expert_sum.h"
#include "arguments.h"
#include "bind.h"

namespace flashgate::python {

using namespace nb::literals;

namespace {

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


void py_route(In2 logits, size_t k, Array<int32_t, 2> indices, Out2 weights) {
    const size_t num_tokens = logits.shape(0), num_experts = logits.shape(1);
    if (k < 1 || k > num_experts)
        refuse("k is " + std::to_string(k) + ", expected 1 to " + std::to_string(num_experts));
    expect_shape("indices", indices, {num_tokens, k});
    expect_shape("weights", weights, {num_tokens, k});
    nb::gil_scoped_release released;
    route(runtime(), logits.data(), num_tokens, num_experts, k, indices.data(), weights.data());
}

}  // namespace

void bind_matrices(nb::module_& m) {
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
    m.def("matmul", py_matmul, strict("x"), strict("data"), "layout"_a, strict("out"));
    m.def("route", py_route, strict("logits"), "k"_a, strict("indices"), strict("weights"));
}

}  // namespace flashgate::python
