/* Reading a block up to its rows: the plain bytes, the checksum, the header. The checksum is checked before anything else, but nothing
 * relies on it: every count is bounded before memory is allocated by it, every index is checked, and words are never read further than
 * two bytes behind their end. */
#ifndef ICECAP_PARSE_H
#define ICECAP_PARSE_H
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
#endif
