/*
 * crc32c: CRC-32 with the Castagnoli polynomial (RFC 3720, appendix B.4), by SSE4.2 where the CPU has it, else by
 * table. crc32c(0, "123456789", 9) is 0xE3069283. Pass a former result as `crc` to go on.
 */
#ifndef QUIRE_SHM_CRC32C_H
#define QUIRE_SHM_CRC32C_H

#include <stddef.h>
#include <stdint.h>

uint32_t crc32c(uint32_t crc, const void *bytes, size_t length);

/* The table form, which is the meaning of the other. */
uint32_t crc32c_by_table(uint32_t crc, const void *bytes, size_t length);

#endif
