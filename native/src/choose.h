/* Choices of the encoder: predictor, table shape, scales. The float lanes name two predictors; both are then priced exactly from
 * histograms of their integer residuals. Prices are in 1/256 bit. */
#ifndef ICECAP_CHOOSE_H
#define ICECAP_CHOOSE_H
#include "analyse.h"
#include "lattice.h"

enum { REACH = 39, BINS = 2 * REACH + 1, PRICE_CLASSES = 18 * 256, ESCAPE_BITS = 7 };
typedef struct { int32_t bin[4][BINS + 1]; int phases; int64_t count, widest; } Histogram;

static inline void histogram_add(Histogram *seen, int phase, int64_t residual) {
    int64_t size = magnitude(residual);
    seen->widest = size > seen->widest ? size : seen->widest;
    residual = residual < -REACH ? -REACH : residual > REACH ? REACH : residual;
    seen->bin[phase][residual + REACH]++;
    seen->count++;
}

static int64_t histogram_price(const Histogram *seen, int shape, int q) {
    int64_t price = 0;
    int span = seen->widest < REACH ? (int)seen->widest : REACH;
    for (int phase = 0; phase < seen->phases; phase++) {
        const Table *table = &tables[shape][q][phase];
        int inside = table->radius < span ? table->radius : span;
        const int32_t *bin = seen->bin[phase] + REACH;
        const uint16_t *cost = table->price + table->radius;
        for (int r = -inside; r <= inside; r++) price += (int64_t)bin[r] * cost[r];
        for (int r = inside + 1; r <= span; r++)
            price += (int64_t)(bin[r] + bin[-r]) * (table->price[table->escape] + 256 * (ESCAPE_BITS + bit_length((uint64_t)(r - table->radius)) - 1));
    }
    return price;
}

/* Price of `shape` at the best table near q. */
static int64_t climb(const Histogram *seen, int shape, int first, int64_t price, int *q) {
    for (int way = -1; way <= 1; way += 2)
        while (*q + way >= first && *q + way < SCALES) {
            int64_t next = histogram_price(seen, shape, *q + way);
            if (next >= price) break;
            price = next;
            *q += way;
        }
    return price;
}

/* Best shape and table for a histogram whose low bits are fixed; starts at the scale `start`. A shape that is no better at the best
 * place of the one before is not looked at further. */
static int64_t best_table(const Histogram *seen, int start, int *shape, int *scale) {
    int low = scale_low(start), first = low ? 16 : 0, q = scale_table(start);
    int64_t best = climb(seen, 0, first, histogram_price(seen, 0, q), &q);
    *shape = 0;
    for (int candidate = 1; candidate < SHAPES; candidate++) {
        int64_t price = histogram_price(seen, candidate, q);
        if (price >= best) continue;
        best = climb(seen, candidate, first, price, &q);
        *shape = candidate;
    }
    *scale = low ? 16 + 3 * low + (q - 16) : q;
    return best + 256 * (int64_t)low * seen->count;
}

static int scale_of_mean(int64_t mean) {
    int low = 0, high = CHANNEL_SCALES - 1;
    while (low < high) {
        int middle = (low + high) / 2;
        if (SCALE_BORDER[middle] <= mean) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* Where the search for a scale starts: the mean, unless a few large residuals spoil it. */
static int64_t usual_residual(const Scores *scores, int predictor, int count) {
    uint32_t bits = (uint32_t)((scores->logs[predictor] << 12) / (count - 1));
    float typical;
    memcpy(&typical, &bits, sizeof typical);
    double usual = scores->mean[predictor], most = (double)typical * 6.0;
    return (int64_t)((usual < most ? usual : most) * 4096.0);
}

/* Price one predictor on y; sets its choices in `channel`. */
static int64_t price_predictor(Channel *channel, const int32_t *y, int count, int predictor, int64_t usual) {
    Histogram seen[3];
    int64_t sums[3] = {0}, counts[3] = {0}, best, overall = 0;
    int guess = scale_of_mean(usual), low = scale_low(guess), shape, scale;
    memset(&seen[0], 0, sizeof seen[0]);
    channel->predictor = (uint8_t)predictor;
    channel->middle = (uint8_t)guess;
    channel->mode = MODE_PLAIN; /* for channel_start only: the caller knows the mode */
    channel->classes = 1;
    channel_start(channel);
    seen[0].phases = 4;
    for (int row = 1; row < count; row++) {
        int64_t mean = channel->s + channel->b, error = ((int64_t)y[row] << FRACTION) - mean, quarter = quarters(mean, low);
        int class = residual_class(channel);
        histogram_add(&seen[0], (int)(quarter & 3), (y[row] >> low) - (quarter >> 2));
        remember(channel, error);
        sums[class] += channel->e1;
        counts[class]++;
        follow(channel, mean, error, row_gain(row));
    }
    best = best_table(&seen[0], guess, &shape, &scale);
    int64_t least = INT64_MAX, most = 0;
    for (int i = 0; i < 3; i++) overall += sums[i];
    overall /= count > 1 ? count - 1 : 1;
    for (int i = 0; i < 3; i++) {
        if (counts[i] <= 3) { sums[i] = overall; continue; }
        sums[i] /= counts[i];
        least = sums[i] < least ? sums[i] : least;
        most = sums[i] > most ? sums[i] : most;
    }
    if (most * 20 > least * 27 && least < INT64_MAX) { /* spreads that differ by a third or more: try one scale a class */
        int guesses[3], lows[3], shapes[3], scales[3];
        int64_t price = PRICE_CLASSES;
        memset(seen, 0, sizeof seen);
        for (int i = 0; i < 3; i++) {
            guesses[i] = scale_of_mean(sums[i]);
            lows[i] = scale_low(guesses[i]);
            seen[i].phases = 4;
        }
        channel_start(channel);
        for (int row = 1; row < count; row++) {
            int64_t mean = channel->s + channel->b, error = ((int64_t)y[row] << FRACTION) - mean;
            int class = residual_class(channel);
            int64_t quarter = quarters(mean, lows[class]);
            histogram_add(&seen[class], (int)(quarter & 3), (y[row] >> lows[class]) - (quarter >> 2));
            remember(channel, error);
            follow(channel, mean, error, row_gain(row));
        }
        for (int i = 0; i < 3; i++) price += best_table(&seen[i], guesses[i], &shapes[i], &scales[i]);
        /* One shape for the channel: the one of the class with most samples, the others climb again within it. */
        int busiest = seen[1].count >= seen[0].count ? (seen[1].count >= seen[2].count ? 1 : 2) : (seen[0].count >= seen[2].count ? 0 : 2);
        price = PRICE_CLASSES;
        for (int i = 0; i < 3; i++) {
            int q = scale_table(scales[i]);
            price += histogram_price(&seen[i], shapes[busiest], q) + 256 * (int64_t)scale_low(scales[i]) * seen[i].count;
        }
        if (price * 500 < best * 499) {
            channel->classes = 3;
            channel->shape = (uint8_t)shapes[busiest];
            for (int i = 0; i < 3; i++) channel->scale[i] = (uint8_t)scales[i];
            return price;
        }
    }
    channel->shape = (uint8_t)shape;
    channel->middle = channel->scale[0] = channel->scale[1] = channel->scale[2] = (uint8_t)scale;
    return best;
}

static void best_two(const Scores *scores, int *by_logs, int *by_mean) {
    *by_logs = *by_mean = 0;
    for (int i = 1; i < PREDICTORS; i++) {
        if (scores->logs[i] < scores->logs[*by_logs]) *by_logs = i;
        if (scores->mean[i] < scores->mean[*by_mean]) *by_mean = i;
    }
}

/* The choices that differ between candidates; mode and lattice stay. */
static void take_choices(Channel *to, const Channel *from) {
    to->predictor = from->predictor;
    to->shape = from->shape;
    to->classes = from->classes;
    to->middle = from->middle;
    memcpy(to->scale, from->scale, sizeof to->scale);
}

static int64_t choose_predictor(Channel *channel, const int32_t *y, int count) {
    Scores scores;
    Channel trial = {0};
    int by_logs, by_mean;
    if (count < 2) {
        trial.classes = 1;
        take_choices(channel, &trial);
        return 0;
    }
    score(y, count, 0, &scores);
    best_two(&scores, &by_logs, &by_mean);
    int64_t price = price_predictor(&trial, y, count, by_mean, usual_residual(&scores, by_mean, count));
    take_choices(channel, &trial);
    if (by_logs != by_mean) {
        int64_t other = price_predictor(&trial, y, count, by_logs, usual_residual(&scores, by_logs, count));
        if (other < price) {
            take_choices(channel, &trial);
            price = other;
        }
    }
    return price;
}

/* ---- bounded: the closed loop, fed with what the decoder will see */
typedef struct { uint64_t inverse; int64_t step, half; } Quantiser;

static inline Quantiser quantiser(int64_t step) {
    Quantiser made = {step > 1 ? ~0ull / (uint64_t)step + 1 : 0, step, step / 2};
    return made;
}

/* round(distance / step), exact for |distance| below 2**32: a multiplication instead of a division. */
static inline int64_t quantise(const Quantiser *made, int64_t distance) {
    uint64_t size = (uint64_t)magnitude(distance) + (uint64_t)made->half;
    int64_t steps = made->step == 1 ? (int64_t)size : (int64_t)(((unsigned __int128)size * made->inverse) >> 64);
    return distance < 0 ? -steps : steps;
}

static int64_t price_bounded(Channel *channel, const int32_t *y, int count, int predictor, int64_t step) {
    Histogram seen;
    Quantiser made = quantiser(step);
    int shape, scale;
    memset(&seen, 0, sizeof seen);
    seen.phases = 1;
    channel->predictor = (uint8_t)predictor;
    channel->mode = MODE_BOUNDED;
    channel->classes = 1;
    channel_start(channel);
    for (int row = 1; row < count; row++) {
        int64_t mean = channel->s + channel->b, steps = quantise(&made, y[row] - whole(mean));
        histogram_add(&seen, 0, steps);
        follow(channel, mean, (steps * step) << FRACTION, row_gain(row));
    }
    int64_t price = best_table(&seen, 6, &shape, &scale);
    channel->shape = (uint8_t)shape;
    channel->middle = channel->scale[0] = channel->scale[1] = channel->scale[2] = (uint8_t)scale;
    return price;
}

static int64_t choose_bounded(Channel *channel, const int32_t *y, int count, int64_t step) {
    Scores scores;
    Channel trial = {0};
    int by_logs = 0, by_mean = 0;
    if (count > 1) {
        score(y, count, (float)step, &scores);
        best_two(&scores, &by_logs, &by_mean);
    }
    int64_t price = price_bounded(&trial, y, count, by_mean, step);
    take_choices(channel, &trial);
    if (by_logs != by_mean) {
        int64_t other = price_bounded(&trial, y, count, by_logs, step);
        if (other < price) {
            take_choices(channel, &trial);
            price = other;
        }
    }
    return price;
}

/* ---- wide: values that need more than 30 bits; wrapping differences of order 0, 1 or 2 */
static inline uint64_t wide_prediction(const Channel *channel) {
    return channel->predictor == 0 ? (uint64_t)channel->first : channel->predictor == 1 ? channel->last : 2 * channel->last - channel->before;
}

static inline void wide_follow(Channel *channel, int64_t value) {
    channel->before = channel->last;
    channel->last = (uint64_t)value;
}

static int64_t price_wide(int64_t *residual, int count, int scale) {
    const Table *table = tables[0][scale_table(scale)];
    int low = scale_low(scale);
    int64_t price = 256 * (int64_t)low * count;
    for (int i = 0; i < count; i++) {
        int64_t top = residual[i] >> low;
        uint64_t size = top < 0 ? 0 - (uint64_t)top : (uint64_t)top;
        if (size <= (uint64_t)table->radius) price += table->price[top + table->radius];
        else price += table->price[table->escape] + 256 * (ESCAPE_BITS + bit_length(size - (uint64_t)table->radius) - 1);
    }
    return price;
}

static void choose_wide(Channel *channel, const int64_t *value, int count, int64_t *residual) {
    int64_t best = -1;
    int order_best = 0;
    channel->shape = 0;
    channel->classes = 1;
    for (int order = 0; order < 4; order++) {
        int64_t lengths = 0;
        int again = order == 3; /* the residuals of the best order once more */
        channel->predictor = (uint8_t)(again ? order_best : order);
        channel->last = channel->before = (uint64_t)value[0];
        for (int i = 1; i < count; i++) {
            residual[i - 1] = (int64_t)((uint64_t)value[i] - wide_prediction(channel));
            lengths += bit_length(zigzag(residual[i - 1]));
            wide_follow(channel, value[i]);
        }
        if (!again && (best < 0 || lengths < best)) {
            best = lengths;
            order_best = order;
        }
    }
    int scale = (int)(3 * best / (count > 1 ? count - 1 : 1));
    scale = scale > WIDE_SCALE_MAX ? WIDE_SCALE_MAX : scale;
    int64_t price = price_wide(residual, count - 1, scale);
    for (int way = -1; way <= 1; way += 2) {
        int64_t next;
        while (scale + way >= 0 && scale + way <= WIDE_SCALE_MAX && (next = price_wide(residual, count - 1, scale + way)) < price) {
            price = next;
            scale += way;
        }
    }
    channel->middle = channel->scale[0] = channel->scale[1] = channel->scale[2] = (uint8_t)scale;
}
#endif
