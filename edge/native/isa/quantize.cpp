// Activations to integers of two signed digits, per token and block of 64 columns.
#include "table.h"

namespace flashgate::FLASHGATE_VARIANT {
namespace {

constexpr int32_t kInfinity = 0x7f800000;
// Below this a scale's inverse would overflow; such a block counts as zero.
constexpr float kLeast = 1e-30f;

// The bits of the greatest magnitude; those of a NaN are above all.
int32_t greatest(const float* x) {
    Ints high = {};
    for (size_t i = 0; i < kBlockCols; i += kLanes) {
        const Ints bits = to_bits(load(x + i)) & splat(0x7fffffff);
        high = bits > high ? bits : high;
    }
    int32_t top = 0;
    for (size_t lane = 0; lane < kLanes; ++lane) top = high[lane] > top ? high[lane] : top;
    return top;
}

void store_low_bytes(int8_t* out, Ints v) {
#if defined(__AVX512F__)
    const __m128i bytes = _mm512_cvtepi32_epi8((__m512i)v);
    memcpy(out, &bytes, sizeof(bytes));
#else
    for (size_t lane = 0; lane < kLanes; ++lane) out[lane] = (int8_t)v[lane];
#endif
}

// Writes the digits of x * inverse, rounded to nearest, and returns the sum of these integers.
int32_t write_digits(const float* x, float inverse, int8_t* digits) {
    const Floats magic = splat(0x1.8p23f);  // adding it rounds to an integer, which stands in the low bits
    Ints total = {};
    for (size_t i = 0; i < kBlockCols; i += kLanes) {
        const Ints q = to_bits(load(x + i) * splat(inverse) + magic) - to_bits(magic);
        total = total + q;
        if (kDigits == 2) store_low_bytes(digits + i, (q + splat(128)) >> 8);
        store_low_bytes(digits + (kDigits - 1) * kBlockCols + i, q);  // modulo 256, which balances them
    }
    int32_t sum = 0;
    for (size_t lane = 0; lane < kLanes; ++lane) sum += total[lane];
    return sum;
}

void write_block(const float* x, int8_t* digits, float* scale, float* sum) {
    const int32_t bits = greatest(x);
    float top;
    memcpy(&top, &bits, sizeof(top));
    *scale = *sum = bits < kInfinity ? 0.0f : NAN;
    if (bits >= kInfinity || top < kLeast) {
        memset(digits, 0, kDigitBytes);
        return;
    }
    *scale = top / (float)kDigitsTop;
    *sum = *scale * (float)write_digits(x, (float)kDigitsTop / top, digits);
}

}  // namespace

void quantize(const float* x, size_t num_columns, const Digits& out, size_t token, size_t block, size_t num_blocks) {
    for (size_t i = 0; i < num_blocks; ++i) {
        const size_t at = (block + i) * out.num_tokens + token, begin = i * kBlockCols;
        const size_t count = begin < num_columns ? num_columns - begin : 0;
        alignas(64) float last[kBlockCols] = {};
        if (count < kBlockCols) memcpy(last, x + begin, count * sizeof(float));
        write_block(count < kBlockCols ? last : x + begin, out.digits + at * kDigitBytes, out.scales + at,
                    out.sums + at);
    }
}

}  // namespace flashgate::FLASHGATE_VARIANT
