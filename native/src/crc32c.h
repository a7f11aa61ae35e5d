/* CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), the fastest way this CPU has, chosen once at run time.
 * No -march flag anywhere: the hardware paths carry their own target attribute, so one wheel runs on every CPU of its family. */
#ifndef ICECAP_CRC32C_H
#define ICECAP_CRC32C_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static uint32_t crc32c_table[8][256];

/* Slicing by eight: one table look-up a byte, eight of them independent. */
static uint32_t crc32c_by_table(uint32_t crc, const uint8_t *data, size_t length) {
    for (; length >= 8; data += 8, length -= 8) {
        uint32_t low = crc ^ ((uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24);
        crc = crc32c_table[7][low & 255] ^ crc32c_table[6][low >> 8 & 255] ^ crc32c_table[5][low >> 16 & 255] ^ crc32c_table[4][low >> 24]
            ^ crc32c_table[3][data[4]] ^ crc32c_table[2][data[5]] ^ crc32c_table[1][data[6]] ^ crc32c_table[0][data[7]];
    }
    for (; length; data++, length--) crc = crc >> 8 ^ crc32c_table[0][(crc ^ *data) & 255];
    return crc;
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <nmmintrin.h>
__attribute__((target("sse4.2"))) static uint32_t crc32c_by_hardware(uint32_t crc, const uint8_t *data, size_t length) {
    uint64_t wide = crc;
    for (; length >= 8; data += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        wide = _mm_crc32_u64(wide, word);
    }
    crc = (uint32_t)wide;
    for (; length; data++, length--) crc = _mm_crc32_u8(crc, *data);
    return crc;
}
static int crc32c_hardware(void) { return __builtin_cpu_supports("sse4.2"); }
#elif defined(__aarch64__) && defined(__linux__) && defined(__GNUC__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#include <sys/auxv.h>
#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1 << 7)
#endif
__attribute__((target("+crc"))) static uint32_t crc32c_by_hardware(uint32_t crc, const uint8_t *data, size_t length) {
    for (; length >= 8; data += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        crc = __builtin_aarch64_crc32cx(crc, word);
    }
    for (; length; data++, length--) crc = __builtin_aarch64_crc32cb(crc, *data);
    return crc;
}
static int crc32c_hardware(void) { return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0; }
#else
static uint32_t crc32c_by_hardware(uint32_t crc, const uint8_t *data, size_t length) { return crc32c_by_table(crc, data, length); }
static int crc32c_hardware(void) { return 0; }
#endif

static int crc32c_uses_hardware = 0;

/* Call once, under the import lock, before the first checksum. */
static void crc32c_init(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0);
        crc32c_table[0][i] = crc;
    }
    for (int slice = 1; slice < 8; slice++)
        for (int i = 0; i < 256; i++) {
            uint32_t crc = crc32c_table[slice - 1][i];
            crc32c_table[slice][i] = crc >> 8 ^ crc32c_table[0][crc & 255];
        }
    crc32c_uses_hardware = crc32c_hardware();
}

static uint32_t crc32c_update(uint32_t value, const uint8_t *data, size_t length) {
    uint32_t crc = ~value;
    crc = crc32c_uses_hardware ? crc32c_by_hardware(crc, data, length) : crc32c_by_table(crc, data, length);
    return ~crc;
}
#endif
