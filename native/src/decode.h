/* Decoder of the block codec. The checksum is checked before anything else, but nothing here relies on it: every count is bounded
 * before memory is allocated by it, every index is checked, and words are never read further than two bytes behind their end. */
#ifndef ICECAP_DECODE_H
#define ICECAP_DECODE_H
#include <stddef.h>
#include "encode.h"

enum {
    DP_TRUNCATED = 1, DP_BAD_MAGIC, DP_BAD_VERSION, DP_BAD_CRC, DP_BAD_COUNT, DP_TOO_LONG, DP_MISSING_KEY, DP_BAD_HEADER, DP_BAD_VALUE,
    DP_BAD_END,
};
enum { ROWS_LIMIT = 16384, CELLS_LIMIT = 1048576, BLOCK_BYTES_MIN = 11 };

typedef struct {
    const uint8_t *data;
    size_t length;
    int kind, rows, channels, chain, two;
    /* while decoding */
    Words words;
    uint32_t x, y;
    int clock, calm, seconds, masks, reasons;
    int64_t start, period_ms;
    uint64_t start_high;
    Channel *channel;
    int64_t *ts_ms, *cells;
    uint8_t *valid, *reason;
} Reader;

/* The header in plain bytes and the checksum; no allocation, no model. */
static int reader_open(Reader *reader, const uint8_t *data, size_t length) {
    size_t at = 1;
    uint32_t rows = 0;
    int shift = 0;
    memset(reader, 0, sizeof *reader);
    if (length < BLOCK_BYTES_MIN) return DP_TRUNCATED;
    if ((data[0] & 0xF0) != MAGIC) return DP_BAD_MAGIC;
    if ((data[0] & 0x0F) > KIND_DEPENDENT) return DP_BAD_VERSION;
    if (crc32c_update(0, data, length - 4) != load_u32(data + length - 4)) return DP_BAD_CRC;
    reader->data = data;
    reader->length = length;
    reader->kind = data[0] & 0x0F;
    do {
        rows |= (uint32_t)(data[at] & 127) << shift;
        shift += 7;
    } while (data[at++] & 128 && shift < 21);
    if (data[at - 1] == 0 || data[at - 1] & 128) return DP_BAD_COUNT; /* none, too many bytes, or not the shortest form */
    reader->channels = data[at++];
    if (rows > ROWS_LIMIT || rows * (uint64_t)reader->channels > CELLS_LIMIT) return DP_TOO_LONG;
    if (reader->channels == 0) return DP_BAD_COUNT;
    reader->rows = (int)rows;
    reader->chain = reader->kind == KIND_DEPENDENT ? data[at++] : 0;
    reader->two = (uint64_t)rows * reader->channels >= TWO_STATES_FROM;
    if (at + (reader->two ? 8 : 4) + 4 > length) return DP_TRUNCATED;
    reader->x = load_u32(data + at);
    at += 4;
    if (reader->two) {
        reader->y = load_u32(data + at);
        at += 4;
    }
    reader->words.at = data + at;
    reader->words.end = data + length - 4;
    return reader->x < STATE_LOW || (reader->two && reader->y < STATE_LOW) ? DP_BAD_HEADER : DP_OK;
}

/* A residual behind its escape. */
static __attribute__((noinline)) int64_t get_excess(uint32_t *x, Words *words, const Table *table) {
    int negative = (int)get_raw(x, words, 1);
    uint64_t size = get_gamma(x, words) + (uint64_t)table->radius + 1;
    return (int64_t)(negative ? 0 - size : size);
}

/* The caller has checked that words->at <= words->end. */
static inline __attribute__((always_inline)) int64_t get_residual(uint32_t *x, Words *words, const Table *table) {
    uint32_t slot = *x & (PROBABILITY - 1);
    int symbol = table->bucket[slot / 4];
    while (UNLIKELY(slot >= table->range[symbol + 1] >> 16)) symbol++;
    uint32_t range = table->range[symbol];
    *x = rans_advance_quick(*x, range >> 16, range & 0xFFFF, words);
    if (UNLIKELY(symbol == table->escape)) {
        Words rest = *words; /* copies, so that the fast path keeps both in registers */
        uint32_t state = *x;
        int64_t excess = get_excess(&state, &rest, table);
        *words = rest;
        *x = state;
        return excess;
    }
    return symbol - table->radius;
}

/* ---- header */
static int get_levels(Reader *reader, Channel *channel) {
    Words *words = &reader->words;
    int count = (int)get_raw(&reader->x, &reader->words, 8);
    channel->origin = (int64_t)get_raw(&reader->x, &reader->words, 8);
    uint64_t usual = get_number(&reader->x, &reader->words);
    int scale = get_chosen(&reader->x, &reader->words, HEAD_SCALE, CHANNEL_SCALES), low = scale_low(scale);
    int64_t value = 0;
    if (count < 2 || channel->origin >= count) return DP_BAD_HEADER;
    channel->levels = (int16_t)count;
    channel->level[0] = 0;
    for (int i = 1; i < count; i++) {
        if (words->at > words->end) return DP_TRUNCATED;
        uint64_t steps = get_flag(&reader->x, &reader->words, HEAD_GAP_CLEAR) ? get_number(&reader->x, &reader->words) + 2 : 1;
        if (words->at > words->end) return DP_TRUNCATED;
        int64_t rest = get_residual(&reader->x, words, &tables[2][scale_table(scale)][0]);
        rest = (int64_t)((uint64_t)rest << low | get_raw(&reader->x, &reader->words, low));
        value = wrap_add(value, wrap_add((int64_t)(steps * usual), rest));
        channel->level[i] = value;
    }
    int64_t zero = wrap_subtract(channel->first, channel->level[channel->origin]);
    for (int i = 0; i < count; i++) channel->level[i] = wrap_add(channel->level[i], zero);
    return DP_OK;
}

static int get_lattice(Reader *reader, Channel *channel) {
    uint32_t *x = &reader->x;
    Words *words = &reader->words;
    uint64_t number;
    channel->mode = (uint8_t)get_chosen(x, words, HEAD_MODE, MODES);
    channel->first = get_reading(x, words);
    channel->step = 1;
    switch (channel->mode) {
    case MODE_DIVISOR:
        channel->step = (int64_t)get_number(x, words);
        break;
    case MODE_AFFINE:
        channel->step = (int64_t)get_number(x, words);
        channel->offset = (int64_t)get_raw(x, words, 16);
        channel->offset = wrap_add(channel->offset, wrap_multiply(unzigzag(get_number(x, words)), 65536));
        channel->origin = unzigzag(get_number(x, words));
        break;
    case MODE_LEVELS:
        return get_levels(reader, channel);
    case MODE_REMAINDER:
        channel->unit = (uint8_t)(get_raw(x, words, 2) + 1);
        channel->zero = (uint8_t)get_raw(x, words, 6);
        channel->origin = floor_divide(channel->first, power_of_ten(channel->unit));
        if (channel->zero >= CALM_CHOICES) return DP_BAD_HEADER;
        break;
    case MODE_WIDE:
        channel->predictor = (uint8_t)get_raw(x, words, 2);
        channel->middle = channel->scale[0] = (uint8_t)get_raw(x, words, 8);
        channel->classes = 1;
        if (channel->predictor > 2 || channel->middle > WIDE_SCALE_MAX) return DP_BAD_HEADER;
        break;
    case MODE_BOUNDED:
        number = get_number_by(x, words, HEAD_BOUND, 30);
        if (number == 0 || number >= CODE_LIMIT / 4) return DP_BAD_HEADER;
        channel->step = (int64_t)number * 2 + 1;
        break;
    default:
        break;
    }
    return DP_OK;
}

static int get_channel(Reader *reader, Channel *channel, const Channel *old, int lane) {
    uint32_t *x = &reader->x;
    Words *words = &reader->words;
    int masked = 0, drop = 0, back = 0, result;
    if (reader->masks && (masked = get_flag(x, words, HEAD_MASK_CLEAR))) {
        drop = (int)get_raw(x, words, 6);
        back = (int)get_raw(x, words, 6);
        if (drop >= CALM_CHOICES || back >= CALM_CHOICES || lane == reader->channels) return DP_BAD_HEADER;
    }
    int carried = reader->kind == KIND_DEPENDENT && lane < reader->channels && !get_flag(x, words, HEAD_FRESH_CLEAR);
    if (carried) {
        *channel = *old;
    } else {
        if ((result = get_lattice(reader, channel)) != DP_OK) return result;
        if (channel->mode != MODE_CONSTANT && channel->mode != MODE_WIDE) {
            channel->predictor = (uint8_t)get_chosen(x, words, HEAD_PREDICTOR, PREDICTORS);
            channel->shape = (uint8_t)get_chosen(x, words, HEAD_SHAPE, SHAPES);
            channel->middle = (uint8_t)(channel->mode == MODE_BOUNDED ? get_chosen(x, words, HEAD_BOUNDED_SCALE, SCALES)
                                                                      : get_chosen(x, words, HEAD_SCALE, CHANNEL_SCALES));
            channel->classes = 1;
            memset(channel->scale, channel->middle, 3);
            if (channel->mode != MODE_BOUNDED && get_flag(x, words, HEAD_CLASSES_CLEAR)) {
                channel->classes = 3;
                for (int i = 0; i < 3; i++) channel->scale[i] = (uint8_t)get_chosen(x, words, HEAD_SCALE, CHANNEL_SCALES);
            }
        }
    }
    channel->column = lane;
    channel->masked = (uint8_t)masked;
    channel->drop = (uint8_t)drop;
    channel->back = (uint8_t)back;
    if (carried) channel_carry(channel);
    else channel_start(channel);
    if (lane == reader->channels && channel->kind != KIND_SILENT) channel->kind = KIND_RARE; /* not a column of the hot loop */
    return words->at > words->end ? DP_TRUNCATED : DP_OK;
}

static int get_head(Reader *reader, const Session *session) {
    uint32_t *x = &reader->x;
    Words *words = &reader->words;
    int dependent = reader->kind == KIND_DEPENDENT;
    reader->clock = get_chosen(x, words, HEAD_CLOCK, 3);
    int other = get_flag(x, words, HEAD_PERIOD_CLEAR);
    reader->period_ms = dependent ? session->period_ms : 1000;
    if (other) reader->period_ms = unzigzag(get_number(x, words));
    if (dependent) {
        int64_t late = get_flag(x, words, HEAD_PERIOD_CLEAR) ? unzigzag(get_number(x, words)) : 0;
        reader->start = wrap_add(wrap_add(session->last_ms, session->period_ms), late);
    } else {
        reader->seconds = !get_flag(x, words, HEAD_SECONDS_CLEAR);
        reader->start_high = get_number(x, words);
    }
    if (reader->clock == CLOCK_GAPS) reader->calm = (int)get_raw(x, words, 6);
    if (reader->calm >= CALM_CHOICES) return DP_BAD_HEADER;
    reader->masks = get_flag(x, words, HEAD_MASKS_CLEAR);
    reader->reasons = get_flag(x, words, HEAD_REASONS_CLEAR);
    int lanes = reader->channels + (reader->clock == CLOCK_CHANNEL);
    for (int lane = 0; lane < lanes; lane++) {
        const Channel *old = dependent && lane < reader->channels ? &session->channel[lane] : NULL;
        int result = get_channel(reader, &reader->channel[lane], old, lane);
        if (result != DP_OK) return result;
    }
    return DP_OK;
}

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
        y = (int64_t)((uint64_t)y << low | get_raw(x, words, low));
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
