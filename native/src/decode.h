/* Decoder of the block codec: rows, reasons, and from codes to values. What parse.h promises about hostile input holds here too. */
#ifndef ICECAP_DECODE_H
#define ICECAP_DECODE_H
#include "parse.h"

/* ---- rows */
static inline int outside(int64_t top, int low) { return (uint64_t)(top + (CODE_LIMIT >> low)) >= (uint64_t)(2 * (int64_t)CODE_LIMIT >> low); }

static inline __attribute__((always_inline)) int decode_plain(Channel *channel, uint32_t *x, Words *words, int gain, int64_t *value) {
    int64_t mean = channel->s + channel->b, quarter, y;
    int class = channel->classes == 3 ? residual_class(channel) : 0, low = channel->low[class];
    const Table *table = channel->table[class];
    if (LIKELY(low == 0)) {
        quarter = quarters(mean, 0);
        y = (int64_t)((uint64_t)(quarter >> 2) + (uint64_t)get_residual(x, words, table + (quarter & 3)));
        if (UNLIKELY(outside(y, 0))) return DP_BAD_VALUE;
    } else {
        quarter = quarters(mean, low);
        y = (int64_t)((uint64_t)(quarter >> 2) + (uint64_t)get_residual(x, words, table + (quarter & 3)));
        if (UNLIKELY(outside(y, low))) return DP_BAD_VALUE;
        if (UNLIKELY(words->at > words->end)) return DP_TRUNCATED;
        y = (int64_t)((uint64_t)y << low | (LIKELY(low <= PROBABILITY_BITS) ? get_raw_quick(x, words, low) : get_raw(x, words, low)));
    }
    int64_t error = (y << FRACTION) - mean;
    if (channel->classes == 3) remember(channel, error);
    follow(channel, mean, error, gain);
    *value = y;
    return DP_OK;
}

static inline __attribute__((always_inline)) int decode_bounded(Channel *channel, uint32_t *x, Words *words, int gain, int64_t *value) {
    int64_t mean = channel->s + channel->b, steps = get_residual(x, words, channel->table[0]);
    if (UNLIKELY(outside(steps, 0))) return DP_BAD_VALUE;
    int64_t y = whole(mean) + steps * channel->step;
    if (UNLIKELY(outside(y, 0))) return DP_BAD_VALUE;
    follow(channel, mean, (steps * channel->step) << FRACTION, gain);
    *value = y;
    return DP_OK;
}

/* What a code stands for. */
static inline int value_of(const Channel *channel, int64_t y, int64_t *value) {
    switch (channel->mode) {
    case MODE_DIVISOR:
        *value = wrap_add(channel->first, wrap_multiply(y, channel->step));
        return DP_OK;
    case MODE_AFFINE:
        *value = wrap_add(channel->first, wrap_add(wrap_multiply(wrap_add(y, channel->origin), channel->step), channel->offset) >> 16);
        return DP_OK;
    case MODE_LEVELS:
        if ((uint64_t)(y + channel->origin) >= (uint64_t)channel->levels) return DP_BAD_VALUE;
        *value = channel->level[y + channel->origin];
        return DP_OK;
    default:
        *value = wrap_add(y, channel->first);
        return DP_OK;
    }
}

static __attribute__((noinline)) int decode_rare(Channel *channel, uint32_t *x, Words *words, int gain, int64_t *out, uint8_t *valid) {
    int64_t y = 0;
    int result = DP_OK;
    if (channel->masked) {
        channel->present ^= get_flag(x, words, CALM[channel->present ? channel->drop : channel->back]);
        if (!channel->present) {
            channel->s += channel->b;
            *out = 0;
            *valid = 0;
            return DP_OK;
        }
    }
    if (UNLIKELY(words->at > words->end)) return DP_TRUNCATED; /* the flag may have taken the last word */
    if (channel->waiting) {
        channel->waiting = 0;
        if (channel->mode == MODE_LEVELS || channel->mode == MODE_AFFINE) return value_of(channel, 0, out);
        *out = channel->first;
        return DP_OK;
    }
    if (channel->mode == MODE_CONSTANT) {
        *out = channel->first;
        return DP_OK;
    }
    if (channel->mode == MODE_WIDE) {
        uint64_t residual = (uint64_t)get_residual(x, words, channel->table[0]);
        residual = residual << channel->low[0] | get_raw(x, words, channel->low[0]);
        *out = (int64_t)(wide_prediction(channel) + residual);
        wide_follow(channel, *out);
        return DP_OK;
    }
    result = channel->mode == MODE_BOUNDED ? decode_bounded(channel, x, words, gain, &y) : decode_plain(channel, x, words, gain, &y);
    if (result != DP_OK) return result;
    if (channel->mode != MODE_REMAINDER) return value_of(channel, y, out);
    int64_t unit = power_of_ten(channel->unit), rest = 0;
    if (get_flag(x, words, CALM[channel->zero])) rest = (int64_t)get_raw(x, words, bit_length((uint64_t)unit - 2)) + 1;
    *out = wrap_add(wrap_multiply(wrap_add(y, channel->origin), unit), rest);
    return DP_OK;
}

/* One cell of the row; `first` is a constant, so that later rows do not ask. */
static inline __attribute__((always_inline)) int decode_cell(
    Reader *reader, Channel *channel, uint32_t *state, Words *words, int64_t *at, int row, int gain, int first) {
    int64_t value = 0;
    int result = DP_OK;
    if (UNLIKELY(words->at > words->end)) return DP_TRUNCATED;
    if (UNLIKELY(channel->kind >= KIND_RARE)) {
        Words rest = *words;
        uint32_t x = *state;
        int clock = channel->column == reader->channels;
        uint8_t *valid = reader->valid && !clock ? reader->valid + (size_t)row * reader->channels + channel->column : NULL;
        result = decode_rare(channel, &x, &rest, gain, clock ? reader->ts_ms + row : at + channel->column, valid);
        *words = rest;
        *state = x;
        return result;
    }
    if (first && channel->waiting) channel->waiting = 0;
    else if (channel->kind == KIND_PLAIN) result = decode_plain(channel, state, words, gain, &value);
    else result = decode_bounded(channel, state, words, gain, &value);
    at[channel->column] = (int64_t)((uint64_t)value + (uint64_t)channel->base);
    return result;
}

/* One row. With two states neighbours take turns, and the CPU works on both at once. */
static inline __attribute__((always_inline)) int decode_row(Reader *reader, Channel *const *order, int active, int row, int two, int first) {
    Words words = reader->words;
    uint32_t x = reader->x, y = reader->y;
    int64_t *at = reader->cells + (size_t)row * reader->channels;
    int gain = row_gain(row), result = DP_OK, i = 0;
    if (!first && reader->clock == CLOCK_GAPS) {
        uint64_t missing = get_flag(&x, &words, CALM[reader->calm]) ? get_gamma(&x, &words) + 1 : 0;
        reader->ts_ms[row] = wrap_add(reader->ts_ms[row - 1], wrap_multiply(reader->period_ms, (int64_t)(missing + 1)));
    }
    for (; two && i + 1 < active; i += 2) {
        result = decode_cell(reader, order[i], &x, &words, at, row, gain, first);
        if (UNLIKELY(result != DP_OK)) return result;
        result = decode_cell(reader, order[i + 1], &y, &words, at, row, gain, first);
        if (UNLIKELY(result != DP_OK)) return result;
    }
    for (; i < active; i++) {
        result = decode_cell(reader, order[i], &x, &words, at, row, gain, first);
        if (UNLIKELY(result != DP_OK)) return result;
    }
    reader->words = words;
    reader->x = x;
    reader->y = y;
    return DP_OK;
}

static int decode_rows(Reader *reader) {
    int lanes = reader->channels + (reader->clock == CLOCK_CHANNEL), active = 0, result;
    Channel *order[CHANNELS + 1];
    for (int lane = 0; lane < lanes; lane++)
        if (reader->channel[lane].kind != KIND_SILENT) order[active++] = &reader->channel[lane];
    reader->ts_ms[0] = 0;
    result = decode_row(reader, order, active, 0, reader->two, 1);
    for (int row = 1; result == DP_OK && reader->two && row < reader->rows; row++) result = decode_row(reader, order, active, row, 1, 0);
    for (int row = 1; result == DP_OK && !reader->two && row < reader->rows; row++) result = decode_row(reader, order, active, row, 0, 0);
    return result;
}

/* From codes to values where the loop left codes; constants; the grid of time stamps. */
static int decode_finish(Reader *reader) {
    int channels = reader->channels;
    for (int lane = 0; lane < channels; lane++) {
        Channel *channel = &reader->channel[lane];
        int64_t *at = reader->cells + lane, *end = reader->cells + (size_t)reader->rows * channels;
        if (channel->kind == KIND_SILENT)
            for (; at < end; at += channels) *at = channel->first;
        else if (channel->kind == KIND_PLAIN && channel->mode != MODE_PLAIN)
            for (; at < end; at += channels)
                if (value_of(channel, *at, at) != DP_OK) return DP_BAD_VALUE;
    }
    int64_t start = reader->start;
    if (reader->kind != KIND_DEPENDENT) {
        uint64_t low = reader->two ? (uint64_t)(reader->y & 0xFFFF) << 16 | reader->start_high << 32 : reader->start_high << 16;
        start = unzigzag(low | (reader->x & 0xFFFF));
        if (reader->seconds) start = wrap_multiply(start, 1000);
    }
    for (int row = 0; row < reader->rows; row++) {
        int64_t grid = reader->clock == CLOCK_GAPS ? 0 : wrap_multiply(reader->period_ms, row);
        int64_t off = reader->clock == CLOCK_REGULAR || (reader->clock == CLOCK_CHANNEL && reader->channel[channels].kind == KIND_SILENT)
            ? 0 : reader->ts_ms[row];
        reader->ts_ms[row] = wrap_add(wrap_add(start, grid), off);
    }
    return DP_OK;
}

static int get_reasons(Reader *reader) {
    uint64_t cells = (uint64_t)reader->rows * reader->channels, at = 0, count = get_number(&reader->x, &reader->words);
    if (count == 0 || count > cells) return DP_BAD_VALUE;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t step = get_number(&reader->x, &reader->words);
        uint8_t code = (uint8_t)get_raw(&reader->x, &reader->words, 8);
        if (step >= cells - at || (i && step == 0) || code == 0) return DP_BAD_VALUE;
        at += step;
        reader->reason[at] = code;
        if (reader->words.at > reader->words.end) return DP_TRUNCATED;
    }
    return DP_OK;
}

/* Header; after it reader->masks and reader->reasons say which arrays the rows need. The caller frees reader->channel. */
static int decode_begin(Reader *reader, const Session *session) {
    size_t lanes = (size_t)reader->channels + 1;
    if (reader->kind == KIND_DEPENDENT
        && (!session || !session->channel || session->channels != reader->channels || reader->chain != session->chain + 1))
        return DP_MISSING_KEY;
    reader->channel = malloc(lanes * sizeof *reader->channel);
    if (!reader->channel) return DP_NO_MEMORY;
    for (size_t lane = 0; lane < lanes; lane++) memset(&reader->channel[lane], 0, offsetof(Channel, level));
    int result = get_head(reader, session);
    return result != DP_OK && reader->kind == KIND_DEPENDENT ? DP_MISSING_KEY : result;
}

static int decode_body(Reader *reader, Session *session) {
    int result = decode_rows(reader);
    if (result == DP_OK && reader->reasons) result = get_reasons(reader);
    /* Every word used and no more, and the coder back in the state the encoder started from. */
    if (result == DP_OK && reader->words.at > reader->words.end) result = DP_TRUNCATED;
    if (result == DP_OK && (reader->words.at != reader->words.end || reader->x >> STATE_LOW_BITS != 1
                            || (reader->two && reader->y >> STATE_LOW_BITS != 1)))
        result = DP_BAD_END;
    if (reader->kind == KIND_DEPENDENT && result == DP_OK
        && ((reader->x & 0xFFFF) != (session->crc & 0xFFFF) || (reader->two && (reader->y & 0xFFFF) != session->crc >> 16)))
        result = DP_MISSING_KEY;
    if (result == DP_OK) result = decode_finish(reader);
    /* The bytes are whole, so what does not fit is the block it leans on. */
    if (result != DP_OK) return reader->kind == KIND_DEPENDENT ? DP_MISSING_KEY : result;
    if (session && reader->kind != KIND_STANDALONE) {
        size_t bytes = (size_t)reader->channels * sizeof *session->channel;
        Channel *kept = realloc(session->channel, bytes);
        if (!kept) return DP_NO_MEMORY;
        memcpy(kept, reader->channel, bytes);
        session->channel = kept;
        session->channels = reader->channels;
        session->chain = reader->chain;
        session->last_ms = reader->ts_ms[reader->rows - 1];
        session->period_ms = reader->period_ms;
        session->crc = load_u32(reader->data + reader->length - 4);
    }
    return DP_OK;
}
#endif
