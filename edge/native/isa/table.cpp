#include "table.h"

#define FLASHGATE_TEXT_OF(x) #x
#define FLASHGATE_TEXT(x) FLASHGATE_TEXT_OF(x)

namespace flashgate::FLASHGATE_VARIANT {

extern const Kernels kTable = {
    .name = FLASHGATE_TEXT(FLASHGATE_VARIANT),
    .matmul_rows = matmul_rows,
    .matmul_tiles = matmul_tiles,
    .quantize = quantize,
    .convolve = convolve,
    .delta_columns = delta_columns,
    .attend = attend,
    .silu_mul = silu_mul,
    .sigmoid_mul = sigmoid_mul,
    .add_scaled = add_scaled,
    .rms_norm = rms_norm,
    .l2_normalize = l2_normalize,
    .softmax = softmax,
    .read_words = read_words,
};

}  // namespace flashgate::FLASHGATE_VARIANT
