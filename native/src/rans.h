/* Range coder of the block codec: rANS with 32-bit states, 16-bit words and 12-bit frequencies.
 * One or two states take turns in one stream of words: two are faster, one is smaller. The encoder collects its symbols ("ops") in
 * reading order and codes them backwards, because rANS is a stack. Invariant: the reader never looks further than two bytes behind
 * `end`, where the block's own checksum still is. */
#ifndef ICECAP_RANS_H
#define ICECAP_RANS_H
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "tables.h"

enum { PROBABILITY_BITS = 12, PROBABILITY = 4096, STATE_LOW = 65536, STATE_LOW_BITS = 16, READING_CLEAR = 3300 };
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

static inline int bit_length(uint64_t value) { return value ? 64 - __builtin_clzll(value) : 0; }
static inline uint64_t zigzag(int64_t value) { return (uint64_t)value << 1 ^ (uint64_t)(value >> 63); }
static inline int64_t unzigzag(uint64_t value) { return (int64_t)(value >> 1 ^ (0 - (value & 1))); }
static inline void store_u16(uint8_t *at, uint32_t value) { at[0] = (uint8_t)value; at[1] = (uint8_t)(value >> 8); }
static inline void store_u32(uint8_t *at, uint32_t value) { store_u16(at, value); store_u16(at + 2, value >> 16); }
/* Byte by byte, so that big-endian machines read the same; compilers make one load of it. */
static inline uint32_t load_u16(const uint8_t *at) { return (uint32_t)at[0] | (uint32_t)at[1] << 8; }
static inline uint32_t load_u32(const uint8_t *at) { return load_u16(at) | load_u16(at + 2) << 16; }

/* ---- writing: state in bit 31, start in bits 16..27, frequency in bits 0..12 */
typedef struct { uint32_t *op; size_t count, room; uint32_t state; int failed; } Ops;

static inline void put(Ops *ops, uint32_t start, uint32_t frequency) { ops->op[ops->count++] = ops->state | start << 16 | frequency; }

/* Room for `more` symbols; callers ask once a row. */
static int ops_reserve(Ops *ops, size_t more) {
    if (LIKELY(ops->count + more <= ops->room)) return 1;
    size_t room = ops->room * 2 > ops->count + more ? ops->room * 2 : ops->count + more;
    uint32_t *bigger = realloc(ops->op, room * sizeof *bigger);
    if (!bigger) { ops->failed = 1; return 0; }
    ops->op = bigger;
    ops->room = room;
    return 1;
}

static inline void put_raw(Ops *ops, uint64_t value, int bits) {
    while (bits > 0) {
        int now = bits > PROBABILITY_BITS ? PROBABILITY_BITS : bits;
        uint32_t frequency = PROBABILITY >> now;
        put(ops, (uint32_t)(value & ((1u << now) - 1)) * frequency, frequency);
        value >>= now;
        bits -= now;
    }
}

/* Elias gamma of value + 1, its length in six raw bits. */
static inline void put_gamma(Ops *ops, uint64_t value) {
    int length = bit_length(value + 1);
    put_raw(ops, (uint64_t)length - 1, 6);
    put_raw(ops, value + 1, length - 1);
}

static inline void put_chosen(Ops *ops, const uint16_t *sums, int index) { put(ops, sums[index], (uint32_t)sums[index + 1] - sums[index]); }

static inline void put_flag(Ops *ops, int flag, uint32_t clear) {
    if (flag) put(ops, clear, PROBABILITY - clear);
    else put(ops, 0, clear);
}

/* A number of any size: its bit length by a prior, then the bits below the leading one. */
static inline void put_number_by(Ops *ops, const uint16_t *lengths, uint64_t value) {
    int length = bit_length(value);
    put_chosen(ops, lengths, length);
    put_raw(ops, value, length - 1);
}
static inline void put_number(Ops *ops, uint64_t value) { put_number_by(ops, HEAD_LENGTH, value); }

/* A reading: most are positive. */
static inline void put_reading(Ops *ops, int64_t value) {
    put_number(ops, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
    if (value) put_flag(ops, value < 0, READING_CLEAR);
}

static uint64_t reciprocal[PROBABILITY + 1];

static void rans_init(void) {
    for (uint64_t frequency = 2; frequency <= PROBABILITY; frequency++) reciprocal[frequency] = ~0ull / frequency + 1;
}

static inline uint32_t rans_push(uint32_t x, uint32_t start, uint32_t frequency, uint8_t **at) {
    if ((x >> 20) >= frequency) {
        *at -= 2;
        store_u16(*at, x);
        x >>= 16;
    }
    uint32_t quotient = frequency == 1 ? x : (uint32_t)(((unsigned __int128)x * reciprocal[frequency]) >> 64);
    return (quotient << PROBABILITY_BITS) + (x - quotient * frequency) + start;
}

/* Code all symbols into the bytes that end at `end` (two bytes of room per symbol); returns where they start. */
static uint8_t *rans_encode(const Ops *ops, uint32_t states[2], uint8_t *end) {
    uint8_t *at = end;
    uint32_t even = states[0], odd = states[1];
    for (size_t i = ops->count; i-- > 0;) {
        uint32_t op = ops->op[i], start = op >> 16 & 0xFFF, frequency = op & 0xFFFF;
        if (op >> 31) odd = rans_push(odd, start, frequency, &at);
        else even = rans_push(even, start, frequency, &at);
    }
    states[0] = even;
    states[1] = odd;
    return at;
}

/* ---- reading */
typedef struct { const uint8_t *at, *end; } Words;

/* `at` may be `end`: the load then reads the checksum, and the caller sees at > end afterwards. */
static inline uint32_t refill(uint32_t x, Words *words) {
    if (x < STATE_LOW) {
        if (UNLIKELY(words->at > words->end)) return x << 16;
        x = x << 16 | load_u16(words->at);
        words->at += 2;
    }
    return x;
}

/* The same without a branch, for the symbol after a check that at <= end: whether a word is due is anybody's guess. */
static inline uint32_t rans_advance_quick(uint32_t x, uint32_t start, uint32_t frequency, Words *words) {
    x = frequency * (x >> PROBABILITY_BITS) + (x & (PROBABILITY - 1)) - start;
    uint32_t due = x < STATE_LOW, filled = x << 16 | load_u16(words->at);
    words->at += 2 * due;
    return due ? filled : x;
}

static inline uint32_t rans_advance(uint32_t x, uint32_t start, uint32_t frequency, Words *words) {
    return refill(frequency * (x >> PROBABILITY_BITS) + (x & (PROBABILITY - 1)) - start, words);
}

static inline uint64_t get_raw(uint32_t *x, Words *words, int bits) {
    uint64_t value = 0;
    int shift = 0;
    while (bits > 0) {
        int now = bits > PROBABILITY_BITS ? PROBABILITY_BITS : bits;
        uint32_t slot = *x & (PROBABILITY - 1), part = slot >> (PROBABILITY_BITS - now);
        value |= (uint64_t)part << shift;
        *x = rans_advance(*x, part << (PROBABILITY_BITS - now), PROBABILITY >> now, words);
        shift += now;
        bits -= now;
    }
    return value;
}

/* At most twelve bits, after a check that at <= end. */
static inline uint32_t get_raw_quick(uint32_t *x, Words *words, int bits) {
    uint32_t part = (*x & (PROBABILITY - 1)) >> (PROBABILITY_BITS - bits);
    *x = rans_advance_quick(*x, part << (PROBABILITY_BITS - bits), PROBABILITY >> bits, words);
    return part;
}

static inline uint64_t get_gamma(uint32_t *x, Words *words) {
    int length = (int)get_raw(x, words, 6);
    return (1ull << length | get_raw(x, words, length)) - 1;
}

static inline int get_chosen(uint32_t *x, Words *words, const uint16_t *sums, int count) {
    uint32_t slot = *x & (PROBABILITY - 1);
    int low = 0, high = count;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (sums[middle] <= slot) low = middle;
        else high = middle;
    }
    *x = rans_advance(*x, sums[low], (uint32_t)sums[low + 1] - sums[low], words);
    return low;
}

static inline int get_flag(uint32_t *x, Words *words, uint32_t clear) {
    int flag = (*x & (PROBABILITY - 1)) >= clear;
    *x = flag ? rans_advance(*x, clear, PROBABILITY - clear, words) : rans_advance(*x, 0, clear, words);
    return flag;
}

static inline uint64_t get_number_by(uint32_t *x, Words *words, const uint16_t *lengths, int count) {
    int length = get_chosen(x, words, lengths, count);
    if (length == 0) return 0;
    return 1ull << (length - 1) | get_raw(x, words, length - 1);
}
static inline uint64_t get_number(uint32_t *x, Words *words) { return get_number_by(x, words, HEAD_LENGTH, 65); }

static inline int64_t get_reading(uint32_t *x, Words *words) {
    uint64_t size = get_number(x, words);
    return (int64_t)(size && get_flag(x, words, READING_CLEAR) ? 0 - size : size);
}
#endif
