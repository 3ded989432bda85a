// down(silu(gate x) * up x) for several experts in one fork/join each for gate and up, and for down: rows of gate and
// up are computed side by side, so that the activation is applied and quantised while they are in the cache.
#include <algorithm>
#include <memory>
#include <vector>

#include "buffer.h"
#include "input.h"
#include "ops.h"
#include "tasks.h"

namespace flashgate {
namespace {

constexpr size_t kRowsPerTask = kBlockCols;  // of gate and up: a block of down's input

// Some tokens of one expert, at most kMaxTokens.
struct Piece {
    const ExpertView& expert;
    const int32_t* rows;  // of x, or null: from first_row on
    size_t first_row, num_tokens;
    float* y;
    std::shared_ptr<Input> x;  // a token that goes to several experts is prepared once if it goes alone
    Input h;
    Buffer<> gate, up;  // [num_tokens, down.cols]

    Piece(const ExpertTokens& job, size_t t, size_t n)
        : expert(job.expert), rows(job.rows ? job.rows + t : nullptr), first_row(t), num_tokens(n),
          y(job.y + t * job.expert.down.rows), h(expert.down, n), gate(n * expert.down.cols),
          up(n * expert.down.cols) {}

    size_t row(size_t t) const { return rows ? static_cast<size_t>(rows[t]) : first_row + t; }
    bool has_same_input(const Piece& other) const {
        return num_tokens == 1 && other.num_tokens == 1 && row(0) == other.row(0);
    }

    void take_token(const Kernels& kernels, const float* all, size_t t) {
        x->set(kernels, t, 0, all + row(t) * expert.gate.cols, expert.gate.cols);
    }

    // Rows [begin, end) of silu(gate x) * up x.
    void activate(const Kernels& kernels, size_t begin, size_t end) {
        const size_t width = expert.down.cols;
        x->multiply(kernels, expert.gate, gate.get(), width, begin, end);
        x->multiply(kernels, expert.up, up.get(), width, begin, end);
        for (size_t t = 0; t < num_tokens; ++t) {
            float* row = gate.get() + t * width + begin;
            kernels.silu_mul(row, up.get() + t * width + begin, row, end - begin);
            h.set(kernels, t, begin, row, end - begin);
        }
    }

    void project(const Kernels& kernels, size_t begin, size_t end) {
        h.multiply(kernels, expert.down, y, expert.down.rows, begin, end);
    }
};

// Calls body(piece, begin, end) for the `rows` rows of every piece.
template <typename Body>
void for_rows(ThreadPool& pool, std::vector<Piece>& pieces, size_t rows, size_t work_per_row, Body&& body) {
    const size_t tasks = (rows + kRowsPerTask - 1) / kRowsPerTask;
    for_pieces(pool, pieces.size() * tasks, 1, work_per_row * kRowsPerTask, [&](size_t first, size_t last) {
        for (size_t i = first; i < last; ++i) {
            const size_t begin = i % tasks * kRowsPerTask;
            body(pieces[i / tasks], begin, std::min(rows, begin + kRowsPerTask));
        }
    });
}

void run_pieces(Runtime& rt, std::vector<Piece>& pieces, const float* x) {
    const Kernels& kernels = *rt.kernels;
    const MatrixView &gate = pieces[0].expert.gate, &down = pieces[0].expert.down;
    size_t num_tokens = 0;
    for (const Piece& piece : pieces) num_tokens += piece.num_tokens;
    // One expert with many tokens is worth sharing out, several experts with few each are too.
    std::vector<std::pair<Piece*, size_t>> tokens;
    for (size_t i = 0; i < pieces.size(); ++i) {
        if (i > 0 && pieces[i].has_same_input(pieces[i - 1])) {
            pieces[i].x = pieces[i - 1].x;
            continue;
        }
        pieces[i].x = std::make_shared<Input>(pieces[i].expert.gate, pieces[i].num_tokens);
        for (size_t t = 0; t < pieces[i].num_tokens; ++t) tokens.emplace_back(&pieces[i], t);
    }
    for_pieces(rt.pool, tokens.size(), kTokensPerTask, gate.cols / 8, [&](size_t begin, size_t end) {
        for (size_t i = begin; i < end; ++i) tokens[i].first->take_token(kernels, x, tokens[i].second);
    });
    const size_t mean = (num_tokens + pieces.size() - 1) / pieces.size();
    for_rows(rt.pool, pieces, gate.rows, 2 * gate.padded_cols * mean,
             [&](Piece& piece, size_t begin, size_t end) { piece.activate(kernels, begin, end); });
    for_rows(rt.pool, pieces, down.rows, down.padded_cols * mean,
             [&](Piece& piece, size_t begin, size_t end) { piece.project(kernels, begin, end); });
    pieces.clear();
}

}  // namespace

void expert_ffn(Runtime& rt, const std::vector<ExpertTokens>& experts, const float* x) {
    std::vector<Piece> pieces;
    size_t num_tokens = 0;  // in pieces
    for (const ExpertTokens& job : experts)
        for (size_t t = 0; t < job.num_tokens; t += kMaxTokens) {
            const size_t count = std::min(kMaxTokens, job.num_tokens - t);
            if (num_tokens + count > kMaxTokens) {
                run_pieces(rt, pieces, x);
                num_tokens = 0;
            }
            pieces.emplace_back(job, t, count);
            num_tokens += count;
        }
    if (num_tokens > 0) run_pieces(rt, pieces, x);
}

}  // namespace flashgate
