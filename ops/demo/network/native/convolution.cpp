// SiLU of a causal depthwise convolution over time, forward and backward, in f32.
//
// Arrays are contiguous: x, y and their gradients [N, C], weight [TAPS, C]; the last tap is the token itself. Sequence b
// has the tokens starts[b] to starts[b + 1] of the N. TAPS comes with -D. One thread does a sequence from end to end, so
// the number of threads changes no bit.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

// Sums of the taps at token t; x points at the sequence.
void taps(const float* x, const float* weight, int64_t t, int64_t channels, float* sums) {
  std::fill_n(sums, channels, 0.0f);
  for (int64_t tap = std::max<int64_t>(0, TAPS - 1 - t); tap < TAPS; ++tap) {
    const float* from = x + (t - (TAPS - 1) + tap) * channels;
    const float* w = weight + tap * channels;
    for (int64_t c = 0; c < channels; ++c) sums[c] += w[c] * from[c];
  }
}

}  // namespace

extern "C" {

void convolve_forward(const float* x, const float* weight, float* y, const int64_t* starts, int64_t sequences,
                      int64_t channels, int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (int64_t b = sequences - 1; b >= 0; --b)
    for (int64_t t = 0; t < starts[b + 1] - starts[b]; ++t) {
      float* out = y + (starts[b] + t) * channels;
      taps(x + starts[b] * channels, weight, t, channels, out);
      for (int64_t c = 0; c < channels; ++c) out[c] /= 1 + std::exp(-out[c]);
    }
}

// dx [N, C], and dweight [B, TAPS, C]: each sequence's share.
void convolve_backward(const float* x, const float* weight, const float* dy, float* dx, float* dweight,
                       const int64_t* starts, int64_t sequences, int64_t channels, int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (int64_t b = sequences - 1; b >= 0; --b) {
    const int64_t start = starts[b] * channels, length = starts[b + 1] - starts[b];
    std::fill_n(dx + start, length * channels, 0.0f);
    std::fill_n(dweight + b * TAPS * channels, TAPS * channels, 0.0f);
    std::vector<float> sums(channels);
    for (int64_t t = 0; t < length; ++t) {
      taps(x + start, weight, t, channels, sums.data());
      const float* d = dy + start + t * channels;
      for (int64_t c = 0; c < channels; ++c) {
        const float gate = 1 / (1 + std::exp(-sums[c]));
        sums[c] = d[c] * gate * (1 + sums[c] * (1 - gate));
      }
      for (int64_t tap = std::max<int64_t>(0, TAPS - 1 - t); tap < TAPS; ++tap) {
        const int64_t from = start + (t - (TAPS - 1) + tap) * channels;
        const float *w = weight + tap * channels, *then = x + from;
        float *dthen = dx + from, *dw = dweight + (b * TAPS + tap) * channels;
        for (int64_t c = 0; c < channels; ++c) {
          dthen[c] += w[c] * sums[c];
          dw[c] += then[c] * sums[c];
        }
      }
    }
  }
}
}
