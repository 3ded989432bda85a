// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), as in iSCSI and ext4.
#pragma once
#include <cstddef>
#include <cstdint>

namespace flashgate {

// The checksum of `size` bytes appended to a text whose checksum is `seed` (0 for none).
uint32_t crc32c(const void* data, size_t size, uint32_t seed = 0);

// The checksum of two texts one after the other, from that of each; `size` is the second one's.
uint32_t crc32c_append(uint32_t first, uint32_t second, size_t size);

// The same as crc32c() from tables only; what it uses on a CPU without the instruction.
uint32_t crc32c_table(const void* data, size_t size, uint32_t seed = 0);

}  // namespace flashgate
