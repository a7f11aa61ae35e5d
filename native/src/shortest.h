/* The shortest decimal digits that read back as the same double, closest to it among those, in the form of Python's repr without a
 * trailing ".0". The algorithm is Schubfach (R. Giulietti, "The Schubfach way to render doubles", 2020): three multiplications by a
 * tabulated power of ten decide, no loop and no big numbers. */
#ifndef ICECAP_SHORTEST_H
#define ICECAP_SHORTEST_H
#include <stdint.h>
#include <string.h>
#include "powers.h"

enum { DOUBLE_FRACTION_BITS = 52, DOUBLE_BIAS = 1075 };

typedef struct { uint64_t digits; int exponent; } ShortestDecimal;

/* floor(power * value / 2**127), its lowest bit set when anything was cut off: enough to compare without ties. */
static inline uint64_t round_to_odd(const uint64_t power[2], uint64_t value) {
    unsigned __int128 low = (unsigned __int128)power[1] * value, high = (unsigned __int128)power[0] * value;
    unsigned __int128 sum = high + (uint64_t)(low >> 64);
    return (uint64_t)(sum >> 64) | ((uint64_t)sum > 1);
}

static ShortestDecimal shortest_decimal(uint64_t bits) {
    uint64_t fraction = bits & ((UINT64_C(1) << DOUBLE_FRACTION_BITS) - 1), c;
    int biased = (int)(bits >> DOUBLE_FRACTION_BITS & 0x7FF), q;
    ShortestDecimal made = {0, 0};
    if (biased) {
        c = fraction | UINT64_C(1) << DOUBLE_FRACTION_BITS;
        q = biased - DOUBLE_BIAS;
        if (q <= 0 && q > -53 && (c & ((UINT64_C(1) << -q) - 1)) == 0) { /* an integer below 2**53 is its own digits */
            made.digits = c >> -q;
            return made;
        }
    } else {
        c = fraction;
        q = 1 - DOUBLE_BIAS;
    }
    int even = (c & 1) == 0, closer_below = fraction == 0 && biased > 1; /* at a power of two the gap below is half as wide */
    int k = (q * 1262611 - (closer_below ? 524031 : 0)) >> 22;           /* floor(log10 of the interval) */
    int h = q + ((-k * 1741647) >> 19) + 1;
    const uint64_t *power = POWERS[-k - POWER_MIN];
    uint64_t lower = round_to_odd(power, (4 * c - 2 + (uint64_t)closer_below) << h) + !even;
    uint64_t middle = round_to_odd(power, (4 * c) << h);
    uint64_t upper = round_to_odd(power, (4 * c + 2) << h) - !even;
    uint64_t s = middle / 4;
    if (s >= 10) { /* one digit less, if exactly one such number is inside */
        uint64_t tens = s / 10;
        int below = lower <= 40 * tens, above = 40 * tens + 40 <= upper;
        if (below != above) {
            made.digits = tens + (uint64_t)above;
            made.exponent = k + 1;
            return made;
        }
    }
    int below = lower <= 4 * s, above = 4 * s + 4 <= upper;
    int up = below != above ? above : middle > 4 * s + 2 || (middle == 4 * s + 2 && (s & 1));
    made.digits = s + (uint64_t)up;
    made.exponent = k;
    return made;
}

/* Writes at most 25 bytes; `value` is finite. */
static char *shortest_double(char *out, double value) {
    uint64_t bits;
    char digits[24];
    int count = 0;
    memcpy(&bits, &value, sizeof bits);
    if (bits >> 63) *out++ = '-';
    if ((bits << 1) == 0) {
        *out++ = '0';
        return out;
    }
    ShortestDecimal decimal = shortest_decimal(bits);
    while (decimal.digits % 10 == 0) {
        decimal.digits /= 10;
        decimal.exponent++;
    }
    for (uint64_t rest = decimal.digits; rest; rest /= 10) digits[sizeof digits - 1 - count++] = (char)('0' + rest % 10);
    const char *first = digits + sizeof digits - count;
    int exponent = decimal.exponent + count - 1; /* of the first digit */
    if (exponent < -4 || exponent >= 16) {       /* where repr changes to the exponent form */
        *out++ = *first;
        if (count > 1) {
            *out++ = '.';
            memcpy(out, first + 1, (size_t)count - 1);
            out += count - 1;
        }
        *out++ = 'e';
        *out++ = exponent < 0 ? '-' : '+';
        int size = exponent < 0 ? -exponent : exponent;
        if (size >= 100) *out++ = (char)('0' + size / 100);
        *out++ = (char)('0' + size / 10 % 10);
        *out++ = (char)('0' + size % 10);
        return out;
    }
    if (exponent < 0) {
        memcpy(out, "0.0000", 6);
        out += 1 - exponent;
        memcpy(out, first, (size_t)count);
        return out + count;
    }
    int whole = exponent + 1;
    for (int i = 0; i < whole; i++) *out++ = i < count ? first[i] : '0';
    if (count > whole) {
        *out++ = '.';
        memcpy(out, first + whole, (size_t)(count - whole));
        out += count - whole;
    }
    return out;
}
#endif
