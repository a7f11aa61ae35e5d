/* Lattices: what kind of numbers a channel holds (all alike, multiples, evenly spaced, a few levels, round numbers) and the small
 * integers that stand for them. Invariant: a fit reproduces every value exactly or is not taken. */
#ifndef ICECAP_LATTICE_H
#define ICECAP_LATTICE_H
#include <math.h>
#include "model.h"

static uint64_t greatest_divisor(uint64_t a, uint64_t b) {
    while (b) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static inline uint64_t distance(int64_t a, int64_t b) { return a > b ? (uint64_t)a - (uint64_t)b : (uint64_t)b - (uint64_t)a; }
static inline int64_t wrap_subtract(int64_t a, int64_t b) { return (int64_t)((uint64_t)a - (uint64_t)b); }
static inline int64_t wrap_add(int64_t a, int64_t b) { return (int64_t)((uint64_t)a + (uint64_t)b); }
static inline int64_t wrap_multiply(int64_t a, int64_t b) { return (int64_t)((uint64_t)a * (uint64_t)b); }

static int ascending32(const void *a, const void *b) {
    int32_t left = *(const int32_t *)a, right = *(const int32_t *)b;
    return (left > right) - (left < right);
}
static int ascending64(const void *a, const void *b) {
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
    return (left > right) - (left < right);
}

/* Constant, common divisor, plain or wide; fills y. */
static void fit_basic(const int64_t *value, int count, Channel *channel, int32_t *y) {
    int64_t low = value[0], high = value[0];
    uint64_t divisor = 0, range;
    int i = 0;
    channel->first = value[0];
    for (i = 1; i < count; i++) {
        low = value[i] < low ? value[i] : low;
        high = value[i] > high ? value[i] : high;
    }
    for (i = 1; i < count && divisor != 1; i++) divisor = greatest_divisor(distance(value[i], value[0]), divisor);
    range = (uint64_t)high - (uint64_t)low;
    channel->step = 1;
    if (range == 0) {
        channel->mode = MODE_CONSTANT;
    } else if (range / divisor >= CODE_LIMIT) {
        channel->mode = MODE_WIDE;
    } else if (divisor == 1) {
        channel->mode = MODE_PLAIN;
        for (i = 0; i < count; i++) y[i] = (int32_t)wrap_subtract(value[i], value[0]);
    } else {
        channel->mode = MODE_DIVISOR;
        channel->step = (int64_t)divisor;
        for (i = 0; i < count; i++) {
            int32_t steps = (int32_t)(distance(value[i], value[0]) / divisor);
            y[i] = value[i] < value[0] ? -steps : steps;
        }
    }
}

/* Sorted distinct values of y into `sorted`; returns how many. A hash first: there are far fewer values than rows. */
static int distinct(const int32_t *y, int count, int32_t *sorted, uint16_t *slots) {
    int kept = 0, bits = 4;
    while (1 << bits < 2 * count) bits++;
    memset(slots, 0, sizeof *slots << bits);
    for (int i = 0; i < count; i++) {
        uint32_t slot = ((uint32_t)y[i] * 2654435761u) >> (32 - bits);
        while (slots[slot] && sorted[slots[slot] - 1] != y[i]) slot = (slot + 1) & ((1u << bits) - 1);
        if (slots[slot]) continue;
        sorted[kept] = y[i];
        slots[slot] = (uint16_t)++kept;
    }
    qsort(sorted, (size_t)kept, sizeof *sorted, ascending32);
    return kept;
}

/* Doubles find the lattice, integers check it: every operation is in one order, so the twin finds the same one. */
static int affine_spacing(const int32_t *sorted, int kept, double *low, double *high) {
    for (int i = 1; i < kept; i++) {
        double value = (double)(sorted[i] - sorted[0]), steps = floor(value / ((*low + *high) / 2) + 0.5);
        double least = (value - 1) / steps, most = (value + 1) / steps;
        if (steps < 1) return 0;
        *low = least > *low ? least : *low;
        *high = most < *high ? most : *high;
        if (*low >= *high) return 0;
    }
    return 1;
}

static int affine_try(const int32_t *y, int count, const int32_t *sorted, int kept, double spacing, Channel *channel, int32_t *out) {
    int64_t step = (int64_t)floor(spacing * 65536 + 0.5), offset;
    double least = 1e18, most = -1e18;
    for (int i = 0; i < kept; i++) {
        double value = (double)(sorted[i] - sorted[0]), steps = floor(value / spacing + 0.5), rest = value - steps * (double)step / 65536.0;
        least = rest < least ? rest : least;
        most = rest > most ? rest : most;
    }
    if (most - least > 0.9985) return 0;
    offset = (int64_t)floor(((least + most) / 2 + 0.5) * 65536);
    for (int i = 0; i < count; i++) {
        int32_t value = y[i] - sorted[0];
        out[i] = (int32_t)floor((double)value / spacing + 0.5);
        if ((out[i] * step + offset) >> 16 != value) return 0;
    }
    channel->step = step;
    channel->offset = offset;
    return 1;
}

/* Evenly spaced with a spacing that is not a whole number: value = base + ((k * step + offset) >> 16), as an ADC behind a printf makes. */
static int fit_affine(const int32_t *y, int count, Channel *channel, int32_t *out, int32_t *sorted, uint16_t *slots) {
    int32_t nearest = CODE_LIMIT;
    int kept;
    for (int i = 1; i < count; i++) {
        int32_t gap = y[i] > y[i - 1] ? y[i] - y[i - 1] : y[i - 1] - y[i];
        if (gap && gap < nearest) nearest = gap;
    }
    if (nearest < 3) return 0; /* decides nearly every channel, before any sorting */
    kept = distinct(y, count, sorted, slots);
    nearest = CODE_LIMIT;
    for (int i = 1; i < kept; i++)
        if (sorted[i] - sorted[i - 1] < nearest) nearest = sorted[i] - sorted[i - 1];
    if (kept < 3 || nearest < 3 || (kept * 4 > count && nearest < 8)) return 0;
    double low = nearest - 1, high = nearest + 1;
    if (!affine_spacing(sorted, kept, &low, &high)) return 0;
    for (int attempt = 0; attempt < 96; attempt++) {
        if (!affine_try(y, count, sorted, kept, low + (high - low) * (attempt + 0.5) / 96, channel, out)) continue;
        channel->mode = MODE_AFFINE;
        channel->origin = out[0];
        channel->first = wrap_add(channel->first, sorted[0]);
        for (int i = count; i-- > 0;) out[i] -= (int32_t)channel->origin;
        return 1;
    }
    return 0;
}

/* Few, sparse levels: y becomes the rank. `value` are the channel's own values, the levels are kept in them. */
static int fit_levels(const int32_t *y, int count, Channel *channel, int32_t *out, int32_t *sorted) {
    int32_t low = y[0], high = y[0];
    int kept = 0;
    uint16_t slots[1024] = {0}; /* open addressing; 255 of 1,024 at most */
    for (int i = 0; i < count; i++) {
        uint32_t slot = ((uint32_t)y[i] * 2654435761u) >> 22;
        low = y[i] < low ? y[i] : low;
        high = y[i] > high ? y[i] : high;
        while (slots[slot] && sorted[slots[slot] - 1] != y[i]) slot = (slot + 1) & 1023;
        if (slots[slot]) continue;
        if (kept == LEVELS_MAX) return 0;
        sorted[kept] = y[i];
        slots[slot] = (uint16_t)++kept;
    }
    if (kept < 3 || kept * 4 > count * 3 || (int64_t)high - low + 1 <= 2 * (int64_t)kept) return 0;
    qsort(sorted, (size_t)kept, sizeof *sorted, ascending32);
    channel->levels = (int16_t)kept;
    for (int i = 0; i < kept; i++) channel->level[i] = wrap_add(channel->first, wrap_multiply(sorted[i], channel->step));
    for (int i = 0; i < count; i++) {
        int from = 0, to = kept - 1;
        while (from < to) {
            int middle = (from + to) / 2;
            if (sorted[middle] < y[i]) from = middle + 1;
            else to = middle;
        }
        out[i] = from;
    }
    channel->mode = MODE_LEVELS;
    channel->origin = out[0];
    channel->step = 1;
    for (int i = count; i-- > 0;) out[i] -= (int32_t)channel->origin;
    return 1;
}

/* Mostly round numbers: y becomes the quotient; the rest is sent beside it. */
static int fit_remainder(const int64_t *value, int count, Channel *channel, int32_t *out) {
    for (int exponent = 4; exponent >= 1; exponent--) {
        int64_t unit = power_of_ten(exponent);
        int uneven = 0;
        for (int i = 0; i < count && uneven * 4 <= count; i++) uneven += value[i] % unit != 0;
        if (uneven * 4 > count) continue;
        int chance = 48; /* the largest chance index whose event is at least as frequent as seen */
        while (chance > 1 && (int64_t)(PROBABILITY - CALM[chance]) * count < (int64_t)uneven * PROBABILITY) chance--;
        channel->mode = MODE_REMAINDER;
        channel->unit = (uint8_t)exponent;
        channel->zero = (uint8_t)chance;
        channel->origin = floor_divide(channel->first, unit);
        for (int i = 0; i < count; i++) out[i] = (int32_t)wrap_subtract(floor_divide(value[i], unit), channel->origin);
        return 1;
    }
    return 0;
}
#endif
