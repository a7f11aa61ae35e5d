/* Preparation of one channel for encoding: lattice and predictor from scratch, from a plan, or carried on from the block before. */
#ifndef ICECAP_PREPARE_H
#define ICECAP_PREPARE_H
#include "choose.h"

typedef struct { int64_t *value, *residual; int32_t *y, *alternative, *sorted; uint16_t *slots; } Scratch;

/* Bounded values must stay clear of the ends of int64: what the decoder rebuilds may lie a bound further out. */
static int64_t bounded_limit(void) { return INT64_C(1) << 62; }
enum { START_SAMPLES = 8, LEVEL_STEP_MAX = 1 << 30 }; /* distances between levels stay far below 2**63 */

/* Price of a channel's levels in the header, about: a flag and a correction each. */
static int64_t price_levels(const Channel *channel) { return 256 * (int64_t)(40 + 3 * channel->levels); }

static void consider(Channel *channel, int64_t *price, Channel *other, int64_t other_price, int32_t *y, const int32_t *candidate, int count) {
    if (other_price >= *price) return;
    *price = other_price;
    *channel = *other;
    memcpy(y, candidate, (size_t)count * sizeof *y);
}

/* Everything from scratch; y gets the integers to code. Returns the price in 1/256 bit, INT64_MAX when there is no other way or when
 * plain coding was not wanted (`plain_too` 0: the bounded loop always beats it). */
static int64_t prepare_lossless(Channel *channel, const Scratch *scratch, int count, int plain_too) {
    Channel other;
    int32_t *y = scratch->y, *candidate = scratch->alternative;
    fit_basic(scratch->value, count, channel, y);
    if (channel->mode == MODE_CONSTANT) return 0;
    if (channel->mode == MODE_WIDE) {
        choose_wide(channel, scratch->value, count, scratch->residual);
        return INT64_MAX;
    }
    if (channel->mode == MODE_PLAIN) {
        other = *channel;
        if (fit_affine(y, count, &other, candidate, scratch->sorted, scratch->slots)) {
            *channel = other;
            memcpy(y, candidate, (size_t)count * sizeof *y);
        }
    }
    int64_t price = plain_too || channel->mode != MODE_PLAIN ? choose_predictor(channel, y, count) : INT64_MAX;
    if (channel->mode == MODE_AFFINE) return price;
    other = *channel;
    if (channel->step <= LEVEL_STEP_MAX && fit_levels(y, count, &other, candidate, scratch->sorted))
        consider(channel, &price, &other, choose_predictor(&other, candidate, count) + price_levels(&other), y, candidate, count);
    if (channel->mode != MODE_PLAIN || !plain_too) return price;
    other = *channel;
    if (fit_remainder(scratch->value, count, &other, candidate)) {
        int64_t rest = 0, each = 256 * (int64_t)bit_length((uint64_t)power_of_ten(other.unit) - 2);
        for (int i = 1; i < count; i++) {
            int round = scratch->value[i] % power_of_ten(other.unit) == 0;
            rest += round ? PRICE[CALM[other.zero]] : PRICE[PROBABILITY - CALM[other.zero]] + each;
        }
        consider(channel, &price, &other, choose_predictor(&other, candidate, count) + rest, y, candidate, count);
    }
    return price;
}

static int bounded_fits(const int64_t *value, int count, int64_t bound) {
    int64_t low = value[0], high = value[0];
    for (int i = 1; i < count; i++) {
        low = value[i] < low ? value[i] : low;
        high = value[i] > high ? value[i] : high;
    }
    return bound > 0 && low >= -bounded_limit() && high <= bounded_limit() && high - low < CODE_LIMIT / 2;
}

/* Start in the middle of the first samples, as far as the first one's bound allows: noise then stays inside the bound for longer. */
static void bounded_codes(Channel *channel, const int64_t *value, int count, int64_t bound, int32_t *y) {
    int64_t sum = 0, near = count < START_SAMPLES ? count : START_SAMPLES, middle;
    for (int i = 0; i < near; i++) sum += value[i] - value[0];
    middle = floor_divide(sum, near);
    middle = middle > bound ? bound : middle < -bound ? -bound : middle;
    channel->mode = MODE_BOUNDED;
    channel->step = 2 * bound + 1;
    channel->first = value[0] + middle;
    for (int i = 0; i < count; i++) y[i] = (int32_t)(value[i] - channel->first);
}

/* Returns the price, like prepare_lossless. */
static int64_t prepare_fresh(Channel *channel, const Scratch *scratch, int count, int64_t bound) {
    Channel bounded = {0};
    if (!bounded_fits(scratch->value, count, bound)) return prepare_lossless(channel, scratch, count, 1);
    int64_t price = prepare_lossless(channel, scratch, count, 0);
    if (channel->mode == MODE_CONSTANT) return price;
    bounded_codes(&bounded, scratch->value, count, bound, scratch->alternative);
    int64_t loose = choose_bounded(&bounded, scratch->alternative, count, bounded.step);
    bounded.mode = MODE_BOUNDED;
    consider(channel, &price, &bounded, loose, scratch->y, scratch->alternative, count);
    return price;
}

/* With a plan the search is skipped; whatever does not fit the plan is prepared from scratch. */
static void prepare_planned(Channel *channel, const Scratch *scratch, int count, int64_t bound, const uint8_t *plan) {
    int mode = plan[0], fits = 0;
    fit_basic(scratch->value, count, channel, scratch->y);
    if (channel->mode == MODE_CONSTANT) return;
    if (mode == MODE_BOUNDED && bounded_fits(scratch->value, count, bound)) {
        bounded_codes(channel, scratch->value, count, bound, scratch->y);
        fits = 1;
    } else if (channel->mode == MODE_PLAIN || channel->mode == MODE_DIVISOR) {
        int32_t *candidate = scratch->alternative;
        if (mode == MODE_PLAIN || mode == MODE_DIVISOR) {
            fits = 1;
        } else if ((mode == MODE_AFFINE && channel->mode == MODE_PLAIN && fit_affine(scratch->y, count, channel, candidate, scratch->sorted, scratch->slots))
                   || (mode == MODE_LEVELS && channel->step <= LEVEL_STEP_MAX && fit_levels(scratch->y, count, channel, candidate, scratch->sorted))
                   || (mode == MODE_REMAINDER && channel->mode == MODE_PLAIN && fit_remainder(scratch->value, count, channel, candidate))) {
            memcpy(scratch->y, candidate, (size_t)count * sizeof *candidate);
            fits = 1;
        }
    }
    if (!fits) {
        prepare_fresh(channel, scratch, count, bound);
        return;
    }
    channel->predictor = plan[1];
    channel->shape = plan[2];
    channel->classes = plan[3];
    memcpy(channel->scale, plan + 4, 3);
    channel->middle = plan[7];
}

static void plan_of(const Channel *channel, uint8_t *plan) {
    plan[0] = channel->mode;
    plan[1] = channel->predictor;
    plan[2] = channel->shape;
    plan[3] = channel->classes;
    memcpy(plan + 4, channel->scale, 3);
    plan[7] = channel->middle;
    if (channel->mode == MODE_CONSTANT || channel->mode == MODE_WIDE) { /* nothing to reuse: prepared afresh next time */
        memset(plan + 1, 0, 7);
        plan[0] = MODE_WIDE;
        plan[3] = 1;
    }
}

static int plan_is_valid(const uint8_t *plan) {
    for (int i = 4; i < PLAN_BYTES; i++)
        if (plan[i] >= CHANNEL_SCALES) return 0;
    if (plan[0] == MODE_BOUNDED && (plan[4] >= SCALES || plan[7] >= SCALES)) return 0;
    return plan[0] < MODES && plan[1] < PREDICTORS && plan[2] < SHAPES && (plan[3] == 1 || plan[3] == 3);
}

/* ---- carrying on: can the values be said in the terms of the block before, and at what price? */
static int carried_codes(const Channel *channel, const int64_t *value, int count, int64_t bound, int32_t *y) {
    for (int i = 0; i < count; i++) {
        int64_t code = wrap_subtract(value[i], channel->first);
        uint64_t away = distance(value[i], channel->first);
        switch (channel->mode) {
        case MODE_CONSTANT:
            if (code) return 0;
            break;
        case MODE_PLAIN:
            if (away >= CODE_LIMIT) return 0;
            break;
        case MODE_DIVISOR:
            if (away % (uint64_t)channel->step || away / (uint64_t)channel->step >= CODE_LIMIT) return 0;
            code = (int64_t)(away / (uint64_t)channel->step);
            if (value[i] < channel->first) code = -code;
            break;
        case MODE_AFFINE: {
            if (away >= CODE_LIMIT) return 0;
            int64_t index = floor_divide((code << 16) + channel->step / 2 - channel->offset + 32768, channel->step);
            int64_t back = (index * channel->step + channel->offset) >> 16;
            if (back < code) back = (++index * channel->step + channel->offset) >> 16;
            else if (back > code) back = (--index * channel->step + channel->offset) >> 16;
            if (back != code || magnitude(index) >= CODE_LIMIT / 2) return 0;
            code = index - channel->origin;
            break;
        }
        case MODE_LEVELS: {
            int from = 0, to = channel->levels - 1;
            while (from < to) {
                int middle = (from + to) / 2;
                if (channel->level[middle] < value[i]) from = middle + 1;
                else to = middle;
            }
            if (channel->level[from] != value[i]) return 0;
            code = from - channel->origin;
            break;
        }
        case MODE_REMAINDER:
            if (away >= CODE_LIMIT) return 0;
            code = floor_divide(value[i], power_of_ten(channel->unit)) - channel->origin;
            break;
        case MODE_BOUNDED:
            if (channel->step != 2 * bound + 1 || away >= CODE_LIMIT / 2 || magnitude(value[i]) > bounded_limit()) return 0;
            break;
        default: /* wide: anything goes, y is not used */
            code = 0;
        }
        y[i] = (int32_t)code;
    }
    return 1;
}

static inline int64_t price_residual(const Table *table, int64_t residual) {
    int64_t size = magnitude(residual);
    if (size <= table->radius) return table->price[residual + table->radius];
    return table->price[table->escape] + 256 * (ESCAPE_BITS + bit_length((uint64_t)(size - table->radius)) - 1);
}

/* Price of going on with the old choices; remainders and masks cost the same either way. */
static int64_t price_carried(const Channel *channel, const int32_t *y, int count) {
    Channel walk = *channel;
    Quantiser made = quantiser(walk.mode == MODE_BOUNDED ? walk.step : 1);
    int64_t price = 0;
    if (walk.mode == MODE_CONSTANT || walk.mode == MODE_WIDE) return 0;
    channel_carry(&walk);
    for (int row = 0; row < count; row++) {
        int64_t mean = walk.s + walk.b, error;
        if (walk.mode == MODE_BOUNDED) {
            int64_t steps = quantise(&made, y[row] - whole(mean));
            price += price_residual(walk.table[0], steps);
            error = (steps * walk.step) << FRACTION;
        } else {
            int class = walk.classes == 3 ? residual_class(&walk) : 0, low = walk.low[class];
            int64_t quarter = quarters(mean, low);
            price += price_residual(walk.table[class] + (quarter & 3), (y[row] >> low) - (quarter >> 2)) + 256 * low;
            error = ((int64_t)y[row] << FRACTION) - mean;
            remember(&walk, error);
        }
        follow(&walk, mean, error, 0);
    }
    return price;
}
#endif
