/* Encoder of the block codec: header, rows, reasons, then the coded words. The layout is documented in docs/format-deltapack.md. */
#ifndef ICECAP_ENCODE_H
#define ICECAP_ENCODE_H
#include "crc32c.h"
#include "prepare.h"

/* HEAD_BYTES_MAX: magic, kind, rows, channels and start, each at its longest; the block is cut to its size afterwards. */
enum { MAGIC = 0xD0, KIND_STANDALONE = 0, KIND_KEY = 1, KIND_DEPENDENT = 2, TWO_STATES_FROM = 1200, HEAD_BYTES_MAX = 16 };
enum { OPS_PER_CELL = 24, PRICE_FRESH = 256 * 36 };
enum { DP_OK = 0, DP_NO_MEMORY = -1 };

typedef struct {
    Channel *channel;       /* `channels` of them, or NULL before the first block */
    int channels, chain;
    int64_t last_ms, period_ms;
    uint32_t crc;
} Session;

typedef struct {
    const int64_t *ts_ms, *cells, *bounds; /* bounds may be NULL: lossless */
    const uint8_t *valid, *reasons, *plan; /* each may be NULL */
    uint8_t *plan_made;                    /* NULL, or 8 bytes a channel to fill instead of encoding */
    Session *session;                      /* NULL for a standalone block */
    int rows, channels, kind;
    /* found on the way */
    int clock, calm;
    int64_t period_ms;
    Channel *channel;
    int32_t *y;
    Ops ops;
} Job;

/* ---- clock: a regular grid, a grid with gaps, or one more channel */
static void clock_of(Job *job, int64_t *gaps_between) {
    const int64_t *ts = job->ts_ms;
    int rows = job->rows, gaps = 0, regular = 1;
    int64_t period = INT64_MAX, gap;
    job->clock = CLOCK_REGULAR;
    job->period_ms = 1000;
    job->calm = 0;
    if (rows < 2) return;
    for (int i = 1; i < rows; i++) {
        int overflows = __builtin_sub_overflow(ts[i], ts[i - 1], &gap);
        gaps_between[i - 1] = wrap_subtract(ts[i], ts[i - 1]);
        if (overflows || gap <= 0) regular = 0;
        else period = gap < period ? gap : period;
    }
    for (int i = 0; regular && i < rows - 1; i++) {
        regular = gaps_between[i] % period == 0;
        gaps += gaps_between[i] != period;
    }
    if (regular && gaps * 3 <= rows) {
        job->period_ms = period;
        if (!gaps) return;
        job->clock = CLOCK_GAPS;
        job->calm = 48;
        while (job->calm > 0 && (int64_t)(PROBABILITY - CALM[job->calm]) * (rows - 1) < (int64_t)gaps * PROBABILITY) job->calm--;
        return;
    }
    job->clock = CLOCK_CHANNEL;
    qsort(gaps_between, (size_t)rows - 1, sizeof *gaps_between, ascending64);
    period = gaps_between[(rows - 1) / 2];
    int64_t even = period > 0 && period < INT64_MAX - 500 ? (period + 500) / 1000 * 1000 : 0;
    job->period_ms = even > 0 && magnitude(period - even) <= even / 16 ? even : period;
}

/* Value of a lane at a row: a cell, or the time stamp's distance from the grid. */
static inline int64_t value_at(const Job *job, int lane, int row) {
    if (lane < job->channels) return job->cells[(size_t)row * job->channels + lane];
    return wrap_subtract(wrap_subtract(job->ts_ms[row], job->ts_ms[0]), wrap_multiply(job->period_ms, row));
}
static inline int valid_at(const Job *job, int lane, int row) {
    return lane == job->channels || !job->valid || job->valid[(size_t)row * job->channels + lane];
}

/* Chances that a sample goes missing and that the next one is back, from counts of what happened. */
static void mask_chances(const Job *job, int lane, Channel *channel) {
    int drops = 0, present_rows = 0, backs = 0, absent_rows = 0, present = 1;
    for (int row = 0; row < job->rows; row++) {
        int now = valid_at(job, lane, row);
        if (present) { present_rows++; drops += !now; }
        else { absent_rows++; backs += now; }
        present = now;
    }
    channel->masked = drops > 0;
    channel->drop = channel->back = 48;
    while (channel->drop > 0 && (int64_t)(PROBABILITY - CALM[channel->drop]) * present_rows < (int64_t)drops * PROBABILITY) channel->drop--;
    while (channel->back > 0 && (int64_t)(PROBABILITY - CALM[channel->back]) * absent_rows < (int64_t)backs * PROBABILITY) channel->back--;
}

static void prepare_lane(Job *job, int lane, const Scratch *scratch) {
    Channel *channel = &job->channel[lane];
    const Channel *old = job->kind == KIND_DEPENDENT && lane < job->channels ? &job->session->channel[lane] : NULL;
    int64_t bound = job->bounds && lane < job->channels ? job->bounds[lane] : 0, price = -1;
    int32_t *target = job->y + (size_t)lane * job->rows;
    int count = 0;
    if (lane < job->channels && !job->valid) { /* nearly always: no questions a cell */
        const int64_t *cell = job->cells + lane;
        for (; count < job->rows; count++, cell += job->channels) scratch->value[count] = *cell;
    } else {
        for (int row = 0; row < job->rows; row++)
            if (valid_at(job, lane, row)) scratch->value[count++] = value_at(job, lane, row);
    }
    if (old && carried_codes(old, scratch->value, count, bound, scratch->y)) price = price_carried(old, scratch->y, count);
    if (count == 0) {
        channel->mode = MODE_CONSTANT;
    } else if (price < 0 || price > PRICE_FRESH) { /* worth looking for something better than going on */
        int64_t fresh = INT64_MAX;
        if (job->plan && lane < job->channels) prepare_planned(channel, scratch, count, bound, job->plan + (size_t)lane * PLAN_BYTES);
        else fresh = prepare_fresh(channel, scratch, count, bound);
        if (price >= 0 && (fresh == INT64_MAX || price <= fresh + PRICE_FRESH)) carried_codes(old, scratch->value, count, bound, scratch->y);
        else price = -1;
    }
    if (price >= 0) *channel = *old;
    channel->column = lane;
    channel->masked = 0;
    if (job->valid && lane < job->channels) mask_chances(job, lane, channel);
    if (count == job->rows) memcpy(target, scratch->y, (size_t)count * sizeof *target);
    else
        for (int row = 0, next = 0; row < job->rows; row++) target[row] = valid_at(job, lane, row) ? scratch->y[next++] : 0;
    if (price >= 0) channel_carry(channel);
    else channel_start(channel);
}

/* ---- header */
static void put_levels(Ops *ops, const Channel *channel) {
    int64_t gaps[LEVELS_MAX], sorted[LEVELS_MAX];
    int count = channel->levels, best = 0;
    int64_t best_price = INT64_MAX;
    for (int i = 0; i + 1 < count; i++) sorted[i] = gaps[i] = channel->level[i + 1] - channel->level[i];
    qsort(sorted, (size_t)count - 1, sizeof *sorted, ascending64);
    int64_t usual = sorted[(count - 2) / 2];
    for (int scale = 0; scale < CHANNEL_SCALES; scale++) {
        int64_t price = 0;
        for (int i = 0; i + 1 < count; i++) {
            int64_t steps = (gaps[i] + usual / 2) / usual;
            int64_t rest = gaps[i] - (steps < 1 ? 1 : steps) * usual;
            price += price_residual(&tables[2][scale_table(scale)][0], rest >> scale_low(scale)) + 256 * scale_low(scale);
        }
        if (price < best_price) {
            best_price = price;
            best = scale;
        } else if (price / 2 > best_price) {
            break;
        }
    }
    put_raw(ops, (uint64_t)count, 8);
    put_raw(ops, (uint64_t)channel->origin, 8);
    put_number(ops, (uint64_t)usual);
    put_chosen(ops, HEAD_SCALE, best);
    for (int i = 0; i + 1 < count; i++) {
        int64_t steps = (gaps[i] + usual / 2) / usual;
        steps = steps < 1 ? 1 : steps;
        put_flag(ops, steps > 1, HEAD_GAP_CLEAR);
        if (steps > 1) put_number(ops, (uint64_t)steps - 2);
        put_residual(ops, &tables[2][scale_table(best)][0], (gaps[i] - steps * usual) >> scale_low(best));
        put_raw(ops, (uint64_t)(gaps[i] - steps * usual), scale_low(best));
    }
}

static void put_lattice(Ops *ops, const Channel *channel) {
    put_chosen(ops, HEAD_MODE, channel->mode);
    put_reading(ops, channel->first);
    switch (channel->mode) {
    case MODE_DIVISOR:
        put_number(ops, (uint64_t)channel->step);
        break;
    case MODE_AFFINE:
        put_number(ops, (uint64_t)channel->step);
        put_raw(ops, (uint64_t)channel->offset & 65535, 16);
        put_number(ops, zigzag(channel->offset >> 16));
        put_number(ops, zigzag(channel->origin));
        break;
    case MODE_LEVELS:
        put_levels(ops, channel);
        break;
    case MODE_REMAINDER:
        put_raw(ops, (uint64_t)channel->unit - 1, 2);
        put_raw(ops, channel->zero, 6);
        break;
    case MODE_WIDE:
        put_raw(ops, channel->predictor, 2);
        put_raw(ops, channel->middle, 8);
        break;
    case MODE_BOUNDED:
        put_number_by(ops, HEAD_BOUND, (uint64_t)channel->step >> 1);
        break;
    default:
        break;
    }
}

static void put_channel(const Job *job, Ops *ops, const Channel *channel) {
    if (job->valid) {
        put_flag(ops, channel->masked, HEAD_MASK_CLEAR);
        if (channel->masked) {
            put_raw(ops, channel->drop, 6);
            put_raw(ops, channel->back, 6);
        }
    }
    if (job->kind == KIND_DEPENDENT && channel->column < job->channels) put_flag(ops, !channel->carried, HEAD_FRESH_CLEAR);
    if (channel->carried) return;
    put_lattice(ops, channel);
    if (channel->mode == MODE_CONSTANT || channel->mode == MODE_WIDE) return;
    put_chosen(ops, HEAD_PREDICTOR, channel->predictor);
    put_chosen(ops, HEAD_SHAPE, channel->shape);
    put_chosen(ops, channel->mode == MODE_BOUNDED ? HEAD_BOUNDED_SCALE : HEAD_SCALE, channel->middle);
    if (channel->mode == MODE_BOUNDED) return;
    put_flag(ops, channel->classes == 3, HEAD_CLASSES_CLEAR);
    for (int i = 0; channel->classes == 3 && i < 3; i++) put_chosen(ops, HEAD_SCALE, channel->scale[i]);
}

/* Time stamps go where they are free: the low bits of the first one into the coder's start states. */
static void put_clock(Job *job, uint32_t states[2], int two) {
    Ops *ops = &job->ops;
    const Session *session = job->session;
    int64_t start = job->ts_ms[0];
    int dependent = job->kind == KIND_DEPENDENT, same = dependent && job->period_ms == session->period_ms;
    uint64_t low;
    put_chosen(ops, HEAD_CLOCK, job->clock);
    put_flag(ops, dependent ? !same : job->period_ms != 1000, HEAD_PERIOD_CLEAR);
    if (dependent ? !same : job->period_ms != 1000) put_number(ops, zigzag(job->period_ms));
    if (dependent) {
        int64_t late = wrap_subtract(wrap_subtract(start, session->last_ms), session->period_ms);
        put_flag(ops, late != 0, HEAD_PERIOD_CLEAR);
        if (late) put_number(ops, zigzag(late));
        low = session->crc;
    } else {
        int seconds = start % 1000 == 0;
        put_flag(ops, !seconds, HEAD_SECONDS_CLEAR);
        low = zigzag(seconds ? start / 1000 : start);
        put_number(ops, two ? low >> 32 : low >> 16);
    }
    if (job->clock == CLOCK_GAPS) put_raw(ops, (uint64_t)job->calm, 6);
    states[0] = STATE_LOW | (uint32_t)(low & 0xFFFF);
    states[1] = STATE_LOW | (uint32_t)(low >> 16 & 0xFFFF);
}

/* ---- rows */
static inline void encode_plain(Ops *ops, Channel *channel, int64_t y, int gain) {
    int64_t mean = channel->s + channel->b, error = (y << FRACTION) - mean;
    int class = 0, low;
    if (channel->classes == 3) {
        class = residual_class(channel);
        remember(channel, error);
    }
    low = channel->low[class];
    if (LIKELY(low == 0)) {
        int64_t quarter = quarters(mean, 0);
        put_residual(ops, channel->table[class] + (quarter & 3), y - (quarter >> 2));
    } else {
        int64_t quarter = quarters(mean, low);
        put_residual(ops, channel->table[class] + (quarter & 3), (y >> low) - (quarter >> 2));
        put_raw(ops, (uint64_t)y, low);
    }
    follow(channel, mean, error, gain);
}

static inline void encode_bounded(Ops *ops, Channel *channel, const Quantiser *made, int64_t y, int gain) {
    int64_t mean = channel->s + channel->b, steps = quantise(made, y - whole(mean));
    put_residual(ops, channel->table[0], steps);
    follow(channel, mean, (steps * channel->step) << FRACTION, gain);
}

static __attribute__((noinline)) void encode_rare(Job *job, Channel *channel, int row, int gain) {
    Ops *ops = &job->ops;
    int lane = channel->column;
    int64_t y = job->y[(size_t)lane * job->rows + row];
    if (channel->masked) {
        int valid = valid_at(job, lane, row);
        put_flag(ops, valid != channel->present, CALM[channel->present ? channel->drop : channel->back]);
        channel->present = valid;
        if (!valid) {
            channel->s += channel->b;
            return;
        }
    }
    if (channel->waiting) {
        channel->waiting = 0;
        return;
    }
    if (channel->mode == MODE_CONSTANT) return;
    if (channel->mode == MODE_WIDE) {
        int64_t value = value_at(job, lane, row), residual = (int64_t)((uint64_t)value - wide_prediction(channel));
        put_residual(ops, channel->table[0], residual >> channel->low[0]);
        put_raw(ops, (uint64_t)residual, channel->low[0]);
        wide_follow(channel, value);
        return;
    }
    if (channel->mode == MODE_BOUNDED) {
        Quantiser made = quantiser(channel->step);
        encode_bounded(ops, channel, &made, y, gain);
        return;
    }
    encode_plain(ops, channel, y, gain);
    if (channel->mode == MODE_REMAINDER) {
        int64_t unit = power_of_ten(channel->unit), rest = value_at(job, lane, row) - floor_divide(value_at(job, lane, row), unit) * unit;
        put_flag(ops, rest != 0, CALM[channel->zero]);
        if (rest) put_raw(ops, (uint64_t)rest - 1, bit_length((uint64_t)unit - 2));
    }
}

/* One row. The symbol list is kept in a local copy, which the compiler keeps in registers. */
static inline void encode_row(Job *job, Channel *const *order, const Quantiser *made, int active, int row, int two) {
    Ops ops = job->ops;
    int gain = row_gain(row);
    ops.state = 0;
    if (row && job->clock == CLOCK_GAPS) {
        int64_t missing = (job->ts_ms[row] - job->ts_ms[row - 1]) / job->period_ms - 1;
        put_flag(&ops, missing != 0, CALM[job->calm]);
        if (missing) put_gamma(&ops, (uint64_t)missing - 1);
    }
    for (int i = 0; i < active; i++) {
        Channel *channel = order[i];
        ops.state = two && (i & 1) ? 0x80000000u : 0;
        int64_t y = job->y[(size_t)channel->column * job->rows + row];
        if (UNLIKELY(channel->kind >= KIND_RARE || channel->waiting)) {
            job->ops = ops;
            encode_rare(job, channel, row, gain);
            ops = job->ops;
        } else if (channel->kind == KIND_PLAIN) {
            encode_plain(&ops, channel, y, gain);
        } else {
            encode_bounded(&ops, channel, &made[i], y, gain);
        }
    }
    job->ops = ops;
}

static int encode_rows(Job *job, int two) {
    int lanes = job->channels + (job->clock == CLOCK_CHANNEL), active = 0;
    Channel *order[CHANNELS + 1];
    Quantiser made[CHANNELS + 1];
    for (int lane = 0; lane < lanes; lane++) {
        if (job->channel[lane].kind == KIND_SILENT) continue;
        made[active] = quantiser(job->channel[lane].mode == MODE_BOUNDED ? job->channel[lane].step : 1);
        order[active++] = &job->channel[lane];
    }
    for (int row = 0; row < job->rows; row++) {
        if (!ops_reserve(&job->ops, (size_t)OPS_PER_CELL * (active + 1))) return DP_NO_MEMORY;
        encode_row(job, order, made, active, row, two);
    }
    return DP_OK;
}

static int put_reasons(Job *job) {
    Ops *ops = &job->ops;
    size_t cells = (size_t)job->rows * job->channels, count = 0, before = 0;
    ops->state = 0;
    for (size_t i = 0; i < cells; i++) count += job->reasons[i] != 0;
    if (!ops_reserve(ops, OPS_PER_CELL * (count + 1))) return DP_NO_MEMORY;
    put_number(ops, count);
    for (size_t i = 0; i < cells; i++) {
        if (!job->reasons[i]) continue;
        put_number(ops, i - before);
        put_raw(ops, job->reasons[i], 8);
        before = i;
    }
    return DP_OK;
}
#endif
