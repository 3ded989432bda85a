// Stored codes by quads, 4 columns of kLanes rows, and their exact dot products with digits of activations.
//
// A tile's 64-byte vector holds 16 rows; a register of kLanes rows is one of its kParts.
#pragma once
#include "../matrix.h"
#include "simd.h"

namespace flashgate::FLASHGATE_VARIANT {

constexpr size_t kParts = kTileRows / kLanes;
constexpr size_t kQuads = kBlockCols / 4;           // of a block
constexpr size_t kQuadBytes = 4 * kTileRows;        // of one quad of a tile, decoded
constexpr size_t kPartBytes = kQuadBytes / kParts;  // of them in one register

typedef uint8_t Codes __attribute__((vector_size(kPartBytes)));
typedef uint16_t Words __attribute__((vector_size(kPartBytes)));

// The four digits of a quad's columns, for every row.
static inline Codes splat_digits(const int8_t* digits) {
    const int32_t four = load_as<int32_t>(digits);
#if defined(__AVX512F__)
    return (Codes)_mm512_set1_epi32(four);
#elif defined(__AVX2__)
    return (Codes)_mm256_set1_epi32(four);
#elif defined(__x86_64__)
    return (Codes)_mm_set1_epi32(four);
#else
    return (Codes)vdupq_n_s32(four);
#endif
}

// Sums takes the products of kSumQuads quads of codes; widen() gives each row's total.
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__) || defined(__ARM_FEATURE_DOTPROD)
using Sums = Ints;
constexpr size_t kSumQuads = kQuads;
static inline Ints widen(Sums sums) { return sums; }
#else
typedef int16_t Sums __attribute__((vector_size(kPartBytes)));
constexpr size_t kSumQuads = 8;  // 8 quads × 2 products of at most 15 * 128 are 30720
static inline Ints widen(Sums sums) {
    const Ints pairs = load_as<Ints>(&sums);
    return (pairs << 16 >> 16) + (pairs >> 16);
}
#endif
static_assert(kSumQuads == kQuads || 2 * kSumQuads == kQuads);  // see dot_plane()

static inline Sums dot(Sums sums, Codes codes, Codes digits) {
#if defined(__AVX512VNNI__)
    return (Sums)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)codes, (__m512i)digits);
#elif defined(__AVXVNNI__)
    return (Sums)_mm256_dpbusd_avx_epi32((__m256i)sums, (__m256i)codes, (__m256i)digits);
#elif defined(__AVX2__)
    return sums + (Sums)_mm256_maddubs_epi16((__m256i)codes, (__m256i)digits);
#elif defined(__ARM_FEATURE_DOTPROD)
    return (Sums)vdotq_s32((int32x4_t)sums, (int8x16_t)codes, (int8x16_t)digits);
#else
    const Sums even = (Sums)((Words)codes & 255) * ((Sums)((Words)digits << 8) >> 8);
    return sums + even + (Sums)((Words)codes >> 8) * ((Sums)digits >> 8);
#endif
}

// Codes of 8 bits are taken as they are where dot() takes unsigned bytes, else as two planes of 4 bits.
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
constexpr size_t kPlanesOfBytes = 1;
#else
constexpr size_t kPlanesOfBytes = 2;
#endif

static inline Codes load_part(const uint8_t* p) { return load_as<Codes>(p); }

// The same for codes that two quads share. Without the constraint GCC loads them for each, and where two tiles are
// multiplied at once it spills their sums: twice the time.
static inline Words load_once(const uint8_t* p) {
    Words words = load_as<Words>(p);
#if defined(__x86_64__)
    asm("" : "+v"(words));
#else
    asm("" : "+w"(words));
#endif
    return words;
}

template <size_t bits>
static inline Codes low_bits(Words codes) {
    return (Codes)codes & (uint8_t)((1 << bits) - 1);
}

// quad(codes, plane, i) is quad i of a block whose first vector's part is at `codes`; a weight's code is the sum over
// planes of 16^plane times what it yields.
template <Format format>
struct Stored;

template <>
struct Stored<Format::kQ8> {
    static constexpr size_t kPlanes = kPlanesOfBytes;
    static Codes quad(const uint8_t* codes, size_t plane, size_t i) {
        const Codes all = load_part(codes + i * kQuadBytes);
        return kPlanes == 1 ? all : low_bits<4>((Words)all >> 4 * plane);
    }
};

template <>
struct Stored<Format::kQ4> {
    static constexpr size_t kPlanes = 1;
    static Codes quad(const uint8_t* codes, size_t, size_t i) {
        return low_bits<4>(load_once(codes + i / 2 * kQuadBytes) >> i % 2 * 4);
    }
};

template <>
struct Stored<Format::kQ2> {
    static constexpr size_t kPlanes = 1;
    static Codes quad(const uint8_t* codes, size_t, size_t i) {
        return low_bits<2>((Words)load_part(codes + i / 4 * kQuadBytes) >> i % 4 * 2);
    }
};

// Four vectors of the low two bits, then two of the third, each of these for eight quads.
template <>
struct Stored<Format::kQ3> {
    static constexpr size_t kPlanes = 1;
    static Codes quad(const uint8_t* codes, size_t, size_t i) {
        const Words thirds = (Words)load_part(codes + (4 + i / 8) * kQuadBytes);
        const size_t bit = i % 8;
        const Words third = bit < 2 ? thirds << (2 - bit) : thirds >> (bit - 2);
        return Stored<Format::kQ2>::quad(codes, 0, i) | ((Codes)third & 4);
    }
};

// As decode_block() in tiles.cpp leaves them.
template <size_t planes>
struct Decoded {
    static constexpr size_t kPlanes = planes;
    static Codes quad(const uint8_t* codes, size_t plane, size_t i) {
        return load_part(codes + (plane * kQuads + i) * kQuadBytes);
    }
};

// out[r][t] = the exact dot products of kSumQuads quads from `first` on, in one plane: codes[r] of kLanes rows with the
// digits of token t, which lie at x + t * kDigitBytes.
template <typename Source, size_t plane, size_t first, size_t kTiles, size_t kTokens>
static inline void dot_quads(const uint8_t* const (&codes)[kTiles], const int8_t* x, Ints (&out)[kTiles][kTokens]) {
    Sums sums[kTiles][kTokens][kDigits] = {};
#pragma GCC unroll 16
    for (size_t i = first; i < first + kSumQuads; ++i) {
        Codes quad[kTiles];
#pragma GCC unroll 4
        for (size_t r = 0; r < kTiles; ++r) quad[r] = Source::quad(codes[r], plane, i);
#pragma GCC unroll 8
        for (size_t t = 0; t < kTokens; ++t)
#pragma GCC unroll 2
            for (size_t d = 0; d < kDigits; ++d) {
                const Codes digits = splat_digits(x + t * kDigitBytes + d * kBlockCols + 4 * i);
#pragma GCC unroll 4
                for (size_t r = 0; r < kTiles; ++r) sums[r][t][d] = dot(sums[r][t][d], quad[r], digits);
            }
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < kTiles; ++r)
#pragma GCC unroll 8
        for (size_t t = 0; t < kTokens; ++t) {
            out[r][t] = widen(sums[r][t][0]);
            if (kDigits == 2) out[r][t] = (out[r][t] << 8) + widen(sums[r][t][kDigits - 1]);
        }
}

// The same of a whole plane.
template <typename Source, size_t plane, size_t kTiles, size_t kTokens>
static inline void dot_plane(const uint8_t* const (&codes)[kTiles], const int8_t* x, Ints (&out)[kTiles][kTokens]) {
    dot_quads<Source, plane, 0>(codes, x, out);
    if constexpr (kSumQuads < kQuads) {
        Ints rest[kTiles][kTokens];
        dot_quads<Source, plane, kSumQuads>(codes, x, rest);
#pragma GCC unroll 4
        for (size_t r = 0; r < kTiles; ++r)
#pragma GCC unroll 8
            for (size_t t = 0; t < kTokens; ++t) out[r][t] += rest[r][t];
    }
}

// The same of all planes.
template <typename Source, size_t kTiles, size_t kTokens>
static inline void dot_block(const uint8_t* const (&codes)[kTiles], const int8_t* x, Ints (&out)[kTiles][kTokens]) {
    dot_plane<Source, 0>(codes, x, out);
    if constexpr (Source::kPlanes == 2) {
        Ints high[kTiles][kTokens];
        dot_plane<Source, 1>(codes, x, high);
#pragma GCC unroll 4
        for (size_t r = 0; r < kTiles; ++r)
#pragma GCC unroll 8
            for (size_t t = 0; t < kTokens; ++t) out[r][t] += high[r][t] << 4;
    }
}

}  // namespace flashgate::FLASHGATE_VARIANT
