// Which variants were built, and which of them this CPU can run.
#include "kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace flashgate {

#define FLASHGATE_DECLARE(variant) \
    namespace variant {            \
    extern const Kernels kTable;   \
    }
#if defined(__x86_64__)
FLASHGATE_DECLARE(avx512)
FLASHGATE_DECLARE(avxvnni)
FLASHGATE_DECLARE(avx2)
#elif defined(__aarch64__)
FLASHGATE_DECLARE(neon)
#endif
FLASHGATE_DECLARE(portable)

namespace {

#if defined(__x86_64__)
// Asked of the CPU itself: clang 14 does not know these names.
bool has_f16c() {
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
}

bool has_avxvnni() {
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax & 1u << 4);
}
#endif

struct Supported {
    const Kernels* tables[4];
    size_t count = 0;

    Supported() {
#if defined(__x86_64__)
        // Each test names what CMakeLists.txt lets the compiler use for that variant.
        const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                        __builtin_cpu_supports("bmi2") && has_f16c();
        if (v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
            __builtin_cpu_supports("avx512vnni"))
            tables[count++] = &avx512::kTable;
        if (v3 && has_avxvnni()) tables[count++] = &avxvnni::kTable;
        if (v3) tables[count++] = &avx2::kTable;
#elif defined(__aarch64__)
        if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) tables[count++] = &neon::kTable;
#endif
        tables[count++] = &portable::kTable;
    }
};

}  // namespace

const Kernels* const* supported_kernels(size_t* count) {
    static const Supported supported;
    *count = supported.count;
    return supported.tables;
}

}  // namespace flashgate
