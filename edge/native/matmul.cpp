#include <algorithm>
#include <optional>
#include <vector>

#include "input.h"
#include "ops.h"
#include "tasks.h"

namespace flashgate {
namespace {

// Rows of one task: whole tiles, enough tasks to share out evenly, and at most the panel that isa/tiles.cpp decodes.
size_t rows_per_task(size_t rows, size_t num_threads) {
    const size_t share = rows / (4 * num_threads) / kTileRows * kTileRows;
    return std::clamp<size_t>(share, kTileRows, 64);
}

// One input in the forms that its matrices take. The widest of a form serves them all: what they do not read comes last.
class Inputs {
public:
    Inputs(const std::vector<Product>& products, size_t num_tokens) {
        for (const bool quantized : {false, true}) {
            const MatrixView* widest = nullptr;
            for (const Product& product : products)
                if (is_quantized(product.w.format) == quantized)
                    if (!widest || product.w.padded_cols > widest->padded_cols) widest = &product.w;
            if (widest) forms_[quantized].emplace(*widest, num_tokens);
        }
    }

    void set(const Kernels& kernels, size_t token, const float* x, size_t cols) {
        for (auto& form : forms_)
            if (form) form->set(kernels, token, 0, x, cols);
    }

    const Input& of(const MatrixView& w) const { return *forms_[is_quantized(w.format)]; }

private:
    std::optional<Input> forms_[2];
};

void multiply(Runtime& rt, const std::vector<Product>& products, const float* x, size_t first, size_t num_tokens) {
    const size_t cols = products[0].w.cols;
    Inputs inputs(products, num_tokens);
    for_pieces(rt.pool, num_tokens, kTokensPerTask, cols / 8, [&](size_t begin, size_t end) {
        for (size_t t = begin; t < end; ++t) inputs.set(*rt.kernels, t, x + (first + t) * cols, cols);
    });

    const auto step = [&](const Product& product) { return rows_per_task(product.w.rows, rt.pool.size()); };
    size_t tasks = 0, work = 0;
    for (const Product& product : products) {
        tasks += (product.w.rows + step(product) - 1) / step(product);
        work += product.w.rows * product.w.padded_cols * num_tokens;
    }
    for_pieces(rt.pool, tasks, 1, work / tasks, [&](size_t task, size_t end) {
        for (const Product& product : products) {
            const MatrixView& w = product.w;
            const size_t rows = step(product), here = (w.rows + rows - 1) / rows;
            if (task < here) {  // serially, `end` may lie in a later matrix
                const size_t stop = std::min(w.rows, std::min(end, here) * rows);
                inputs.of(w).multiply(*rt.kernels, w, product.y + first * w.rows, w.rows, task * rows, stop);
            }
            if (end <= here) return;
            task -= std::min(task, here);
            end -= here;
        }
    });
}

}  // namespace

void matmuls(Runtime& rt, const std::vector<Product>& products, const float* x, size_t num_tokens) {
    for (size_t t = 0; t < num_tokens; t += kMaxTokens)
        multiply(rt, products, x, t, std::min(kMaxTokens, num_tokens - t));
}

}  // namespace flashgate
