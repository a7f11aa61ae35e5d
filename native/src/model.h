/* Model of the block codec: residual tables, and what encoder and decoder know about one channel while they walk its rows.
 * A coded channel is a sequence y of integers below 2**30 relative to its first value; a filter with 12 fraction bits predicts it, and
 * the residual is coded by a fixed table chosen by shape, scale and the quarter in which the prediction falls. Integers only, so that
 * every machine and the Python twin make the same bytes. */
#ifndef ICECAP_MODEL_H
#define ICECAP_MODEL_H
#include "rans.h"

/* LEVELS_MAX and CHANNELS are counted in a byte of the header; WIDE_SCALE_MAX: three scales a bit: 66 bits hold any difference of two int64. */
enum { FRACTION = 12, CODE_LIMIT = 1 << 30, LEVELS_MAX = 255, CHANNELS = 255, WIDE_SCALE_MAX = 198, PLAN_BYTES = 8 };
enum { MODE_PLAIN, MODE_DIVISOR, MODE_AFFINE, MODE_CONSTANT, MODE_LEVELS, MODE_REMAINDER, MODE_WIDE, MODE_BOUNDED, MODES };
enum { KIND_PLAIN, KIND_BOUNDED, KIND_RARE, KIND_SILENT };
enum { CLOCK_REGULAR, CLOCK_GAPS, CLOCK_CHANNEL };
enum { HEAD_MASKS_CLEAR = 3900, HEAD_REASONS_CLEAR = 4000, HEAD_SECONDS_CLEAR = 1100, HEAD_PERIOD_CLEAR = 3700, HEAD_CLASSES_CLEAR = 2900 };
enum { HEAD_MASK_CLEAR = 2048, HEAD_FRESH_CLEAR = 3900, HEAD_GAP_CLEAR = 3500 };

typedef struct {
    uint8_t bucket[PROBABILITY / 4];  /* first symbol of four slots: a quarter of the cache a full table would need */
    uint32_t range[SYMBOLS_MAX + 1];  /* start << 16 | frequency; one more start behind the last */
    uint16_t price[SYMBOLS_MAX];      /* 1/256 bit */
    int radius, escape;
} Table;

static Table tables[SHAPES][SCALES][4];

typedef struct {
    /* what the row loops touch, first so that it shares cache lines */
    int64_t s, b;                     /* level and slope in 1/4096 */
    const Table *table[3];
    const int32_t *level_gain, *slope_gain;
    int low[3];                       /* bits sent raw below the residual */
    int gain_mask;                    /* 0 once settled: the start-up schedule is over */
    int kind, column, waiting, present;
    int64_t base;                     /* added to y where the value is y + base */
    int64_t step;                     /* common divisor, quantiser step, or 1/65536 of a lattice's spacing */
    int64_t e1, e2, e3;               /* magnitudes of the last residuals */
    int64_t calm_below, wild_above;   /* classes of recent residuals */
    /* choices, sent in the header */
    uint8_t mode, predictor, shape, classes, scale[3], middle;
    uint8_t masked, drop, back;       /* chances that a sample is missing, and that the next one is back */
    uint8_t unit, zero;               /* remainder: power of ten, chance of a zero */
    uint8_t carried;
    int16_t levels;
    int64_t first, offset, origin;
    uint64_t last, before;            /* wide: the last two values */
    int64_t level[LEVELS_MAX];
} Channel;

static int power_of_ten(int exponent) { static const int powers[5] = {1, 10, 100, 1000, 10000}; return powers[exponent]; }

static void model_init(void) {
    const uint16_t *frequency = TABLE_FREQUENCY;
    rans_init();
    for (int shape = 0; shape < SHAPES; shape++)
        for (int q = 0; q < SCALES; q++)
            for (int phase = 0; phase < 4; phase++) {
                Table *table = &tables[shape][q][phase];
                uint32_t start = 0;
                table->radius = TABLE_RADIUS[q];
                table->escape = 2 * table->radius + 1;
                for (int symbol = 0; symbol <= table->escape; symbol++, frequency++) {
                    table->range[symbol] = start << 16 | *frequency;
                    table->price[symbol] = PRICE[*frequency];
                    for (uint32_t slot = (start + 3) / 4; slot * 4 < start + *frequency; slot++) table->bucket[slot] = (uint8_t)symbol;
                    start += *frequency;
                }
                table->range[table->escape + 1] = start << 16;
            }
}

/* A scale index is a table and a number of low bits sent raw. */
static inline int scale_table(int scale) { return scale < SCALES ? scale : 16 + (scale - 16) % 3; }
static inline int scale_low(int scale) { return scale < SCALES ? 0 : (scale - 16) / 3; }

/* Prediction in quarters of 2**low steps, rounded. */
static inline int64_t quarters(int64_t mean, int low) {
    return (mean + (1ll << (FRACTION - 1)) - (1ll << (FRACTION - 1 + low)) + (1ll << (FRACTION - 3 + low))) >> (FRACTION - 2 + low);
}
static inline int64_t whole(int64_t mean) { return (mean + (1 << (FRACTION - 1))) >> FRACTION; }
static inline int64_t magnitude(int64_t value) { return value < 0 ? -value : value; }
static inline int64_t floor_divide(int64_t value, int64_t unit) { return value / unit - (value % unit < 0); }
static inline int row_gain(int row) { return row < WARM_UP ? row : WARM_UP; }

/* One residual: its symbol, or the escape, a sign and the excess. */
static inline void put_residual(Ops *ops, const Table *table, int64_t residual) {
    if (LIKELY(residual >= -table->radius && residual <= table->radius)) {
        ops->op[ops->count++] = ops->state | table->range[residual + table->radius];
        return;
    }
    uint64_t size = residual < 0 ? 0 - (uint64_t)residual : (uint64_t)residual;
    ops->op[ops->count++] = ops->state | table->range[table->escape];
    put_raw(ops, residual < 0, 1);
    put_gamma(ops, size - (uint64_t)table->radius - 1);
}

/* Which of the three scales applies: small, usual or large recent residuals. */
static inline int residual_class(const Channel *channel) {
    int64_t recent = 2 * channel->e1 + channel->e2 + channel->e3;
    return (recent >= channel->calm_below) + (recent > channel->wild_above);
}

static inline void remember(Channel *channel, int64_t error) {
    channel->e3 = channel->e2;
    channel->e2 = channel->e1;
    channel->e1 = magnitude(error);
}

static inline void follow(Channel *channel, int64_t mean, int64_t error, int row) {
    int at = row & channel->gain_mask;
    channel->s = mean + ((error * channel->level_gain[at]) >> 16);
    channel->b += (error * channel->slope_gain[at]) >> 16;
}

static inline void set_classes(Channel *channel) {
    int64_t mean = SCALE_MEAN[channel->middle];
    channel->calm_below = mean * 12 / 5; /* 0.6 and 1.5 of four usual residuals; floor, both ends do the same */
    channel->wild_above = mean * 6;
    channel->e1 = channel->e2 = channel->e3 = mean;
}

/* Derive what the row loops use from the choices. */
static void channel_tables(Channel *channel) {
    for (int i = 0; i < 3; i++) {
        int scale = channel->scale[channel->classes == 3 ? i : 0];
        channel->table[i] = tables[channel->shape][scale_table(scale)];
        channel->low[i] = scale_low(scale);
    }
    channel->level_gain = &LEVEL_GAIN[channel->predictor * (WARM_UP + 1)];
    channel->slope_gain = &SLOPE_GAIN[channel->predictor * (WARM_UP + 1)];
    channel->kind = channel->mode == MODE_CONSTANT ? KIND_SILENT
        : channel->mode == MODE_BOUNDED            ? KIND_BOUNDED
        : channel->mode == MODE_WIDE || channel->mode == MODE_REMAINDER ? KIND_RARE : KIND_PLAIN;
    if (channel->masked) channel->kind = KIND_RARE;
}

/* A channel that starts in this block. */
static void channel_start(Channel *channel) {
    channel_tables(channel);
    if (channel->mode != MODE_WIDE) set_classes(channel); /* a wide scale index is beyond the means */
    channel->s = channel->b = 0;
    channel->gain_mask = 127;
    channel->carried = 0;
    channel->waiting = 1;
    channel->present = 1;
    channel->last = (uint64_t)channel->first;
    channel->before = (uint64_t)channel->first;
    channel->base = channel->mode == MODE_PLAIN || channel->mode == MODE_BOUNDED || channel->mode == MODE_CONSTANT ? channel->first : 0;
}

/* A channel that goes on from the block before: no first value, no start-up. */
static void channel_carry(Channel *channel) {
    channel_tables(channel);
    channel->level_gain += WARM_UP;
    channel->slope_gain += WARM_UP;
    channel->gain_mask = 0;
    channel->carried = 1;
    channel->waiting = 0;
    channel->present = 1;
}
#endif
