// A vector of floats of the instruction set that this file is compiled for, and the few operations that kernels need.
//
// FLASHGATE_VARIANT names the namespace. Everything here and in isa/*.cpp lives in it, and no standard C++ header is
// used: an inline function shared between variants could be kept by the linker in its newest-CPU form.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace flashgate::FLASHGATE_VARIANT {

#if defined(__AVX512F__)
constexpr size_t kLanes = 16;
constexpr size_t kRegisters = 32;
using Floats = __m512;
#elif defined(__AVX2__)
constexpr size_t kLanes = 8;
constexpr size_t kRegisters = 16;
using Floats = __m256;
#elif defined(__x86_64__)
constexpr size_t kLanes = 4;
constexpr size_t kRegisters = 16;
using Floats = __m128;
#elif defined(__aarch64__)
constexpr size_t kLanes = 4;
constexpr size_t kRegisters = 32;
using Floats = float32x4_t;
#else
#error "flashgate has kernels for x86-64 and arm64"
#endif

typedef int32_t Ints __attribute__((vector_size(kLanes * 4)));

template <typename V>
static inline V load_as(const void* p) {
    V v;
    memcpy(&v, p, sizeof(V));
    return v;
}

static inline Floats load(const float* p) { return load_as<Floats>(p); }
static inline void store(float* p, Floats v) { memcpy(p, &v, sizeof(v)); }

// The first n < kLanes floats, then zeros. The rest is never touched.
static inline Floats load_first(const float* p, size_t n) {
    float lanes[kLanes] = {};
    for (size_t i = 0; i < n; ++i) lanes[i] = p[i];
    return load(lanes);
}

static inline void store_first(float* p, Floats v, size_t n) {
    float lanes[kLanes];
    store(lanes, v);
    for (size_t i = 0; i < n; ++i) p[i] = lanes[i];
}

// Intrinsics, because GCC does not see a broadcast in a loop over the lanes.
static inline Floats splat(float x) {
#if defined(__AVX512F__)
    return _mm512_set1_ps(x);
#elif defined(__AVX2__)
    return _mm256_set1_ps(x);
#elif defined(__x86_64__)
    return _mm_set1_ps(x);
#else
    return vdupq_n_f32(x);
#endif
}

static inline Ints splat(int32_t x) { return Ints{} + x; }

// a * b + c: one rounding where the CPU has it, two elsewhere, but the same in every kernel of a variant
// (the build forbids the compiler to contract on its own).
static inline Floats fma(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
    return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
    return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__)
    return vfmaq_f32(c, a, b);
#else
    return a * b + c;
#endif
}

// The sum of the lanes, always in the same order: halves are added until four lanes are left.
static inline float sum(Floats v) {
#if defined(__AVX512F__)
    const auto v8 = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                    __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
#elif defined(__AVX2__)
    const auto v8 = v;
#endif
#if defined(__AVX2__)
    const auto v4 = __builtin_shufflevector(v8, v8, 0, 1, 2, 3) + __builtin_shufflevector(v8, v8, 4, 5, 6, 7);
#else
    const auto v4 = v;
#endif
    return (v4[0] + v4[2]) + (v4[1] + v4[3]);
}

static inline Floats from_bits(Ints bits) { return load_as<Floats>(&bits); }
static inline Ints to_bits(Floats v) { return load_as<Ints>(&v); }

// kLanes 16-bit words as integers. By intrinsics: GCC takes __builtin_convertvector of short vectors apart.
static inline Ints load_words(const uint16_t* p) {
#if defined(__AVX512F__)
    return (Ints)_mm512_cvtepu16_epi32(load_as<__m256i>(p));
#elif defined(__AVX2__)
    return (Ints)_mm256_cvtepu16_epi32(load_as<__m128i>(p));
#elif defined(__x86_64__)
    return (Ints)_mm_unpacklo_epi16(_mm_loadl_epi64((const __m128i*)p), _mm_setzero_si128());
#else
    return (Ints)vmovl_u16(vld1_u16(p));
#endif
}

static inline Floats from_bf16(const uint16_t* p) { return from_bits(load_words(p) << 16); }

// Exact for every fp16 value.
static inline Floats from_f16(const uint16_t* p) {
#if defined(__AVX512F__)
    return _mm512_cvtph_ps(load_as<__m256i>(p));
#elif defined(__F16C__)
    return _mm256_cvtph_ps(load_as<__m128i>(p));
#elif defined(__aarch64__)
    return vcvt_f32_f16(load_as<float16x4_t>(p));
#else
    // The exponent is rebased by a multiplication, which also normalises subnormals.
    const Ints half = load_words(p);
    const Ints finite = to_bits(from_bits((half & splat(0x7fff)) << 13) * splat(0x1p112f));
    const Ints special = ((half & splat(0x7c00)) == splat(0x7c00)) & splat(0x7f800000);
    return from_bits(finite | special | (half & splat(0x8000)) << 16);
#endif
}

// e^x to about 2 ulp; 0 and infinity beyond the range, NaN stays NaN. Reduction to |r| <= ln2/2 and the polynomial
// are those of Cephes' expf.
static inline Floats exp(Floats x) {
    const Floats low = splat(-105.0f), high = splat(90.0f);
    x = x < low ? low : x;
    x = x > high ? high : x;
    const Floats magic = splat(0x1.8p23f);  // adding it rounds to an integer, which stands in the low bits
    const Floats shifted = fma(x, splat(0x1.715476p0f), magic);
    const Floats n = shifted - magic;
    Floats r = fma(n, splat(-0.693359375f), x);
    r = fma(n, splat(2.12194440e-4f), r);
    Floats p = splat(1.9875691500e-4f);
    p = fma(p, r, splat(1.3981999507e-3f));
    p = fma(p, r, splat(8.3334519073e-3f));
    p = fma(p, r, splat(4.1665795894e-2f));
    p = fma(p, r, splat(1.6666665459e-1f));
    p = fma(p, r, splat(5.0000001201e-1f));
    p = fma(p, r * r, r + splat(1.0f));
    // 2^n in two factors, so that neither overflows or vanishes before the product does.
    const Ints whole = to_bits(shifted) - to_bits(magic);
    const Ints half = whole >> 1;
    return p * from_bits((half + splat(127)) << 23) * from_bits((whole - half + splat(127)) << 23);
}

static inline Floats sigmoid(Floats x) { return splat(1.0f) / (splat(1.0f) + exp(-x)); }
static inline Floats silu(Floats x) { return x / (splat(1.0f) + exp(-x)); }

}  // namespace flashgate::FLASHGATE_VARIANT
