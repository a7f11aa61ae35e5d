/* A whole block out: header, rows and reasons into symbols, symbols into words, words into bytes with their checksum. */
#ifndef ICECAP_BLOCK_H
#define ICECAP_BLOCK_H
#include "encode.h"

static int plan_lanes(Job *job, uint8_t *memory) {
    size_t rows = (size_t)job->rows;
    Scratch scratch;
    scratch.value = (int64_t *)memory;
    scratch.residual = scratch.value + rows;
    scratch.y = (int32_t *)(scratch.residual + rows);
    scratch.alternative = scratch.y + rows;
    scratch.sorted = scratch.alternative + rows;
    scratch.slots = (uint16_t *)(scratch.sorted + rows);
    clock_of(job, scratch.residual);
    int lanes = job->channels + (job->clock == CLOCK_CHANNEL);
    for (int lane = 0; lane < lanes; lane++) prepare_lane(job, lane, &scratch);
    for (int lane = 0; job->plan_made && lane < job->channels; lane++)
        plan_of(&job->channel[lane], job->plan_made + (size_t)lane * PLAN_BYTES);
    return lanes;
}

static size_t plain_header(const Job *job, uint8_t *out) {
    size_t at = 0;
    uint32_t rows = (uint32_t)job->rows;
    out[at++] = (uint8_t)(MAGIC | job->kind);
    for (; rows > 127; rows >>= 7) out[at++] = (uint8_t)(rows | 128);
    out[at++] = (uint8_t)rows;
    out[at++] = (uint8_t)job->channels;
    if (job->kind == KIND_DEPENDENT) out[at++] = (uint8_t)(job->session->chain + 1);
    return at;
}

/* Symbols of the whole block; the caller frees job->ops.op. */
static int symbols_of(Job *job, int lanes, uint32_t states[2], int two) {
    if (!ops_reserve(&job->ops, (size_t)job->rows * job->channels * 2 + (size_t)lanes * 64 + 256)) return DP_NO_MEMORY;
    put_clock(job, states, two);
    put_flag(&job->ops, job->valid != NULL, HEAD_MASKS_CLEAR);
    put_flag(&job->ops, job->reasons != NULL, HEAD_REASONS_CLEAR);
    for (int lane = 0; lane < lanes; lane++) {
        if (!ops_reserve(&job->ops, 64 + (size_t)job->channel[lane].levels * OPS_PER_CELL)) return DP_NO_MEMORY;
        put_channel(job, &job->ops, &job->channel[lane]);
    }
    if (encode_rows(job, two) != DP_OK) return DP_NO_MEMORY;
    return job->reasons ? put_reasons(job) : DP_OK;
}

/* The session remembers what the decoder will know. */
static int session_store(Session *session, const Job *job, uint32_t crc) {
    Channel *kept = realloc(session->channel, (size_t)job->channels * sizeof *kept);
    if (!kept) return DP_NO_MEMORY;
    session->channel = kept;
    session->channels = job->channels;
    memcpy(session->channel, job->channel, (size_t)job->channels * sizeof *job->channel);
    session->chain = job->kind == KIND_DEPENDENT ? session->chain + 1 : 0;
    session->last_ms = job->ts_ms[job->rows - 1];
    session->period_ms = job->period_ms;
    session->crc = crc;
    return DP_OK;
}

/* Encode `job`; *out is malloc'ed, *length its size. */
static int encode_job(Job *job, uint8_t **out, size_t *length) {
    size_t rows = (size_t)job->rows, lanes_max = (size_t)job->channels + 1;
    uint8_t *memory = malloc(rows * (2 * sizeof(int64_t) + 3 * sizeof(int32_t) + 4 * sizeof(uint16_t)) + 64);
    int two = rows * (size_t)job->channels >= TWO_STATES_FROM, result = DP_NO_MEMORY;
    uint32_t states[2];
    *out = NULL;
    job->y = malloc(lanes_max * rows * sizeof *job->y);
    job->channel = calloc(lanes_max, sizeof *job->channel);
    if (memory && job->y && job->channel) {
        int lanes = plan_lanes(job, memory);
        if (job->plan_made) result = DP_OK;
        else if (symbols_of(job, lanes, states, two) == DP_OK && (*out = malloc(HEAD_BYTES_MAX + 2 * job->ops.count + 4)) != NULL) {
            size_t head = plain_header(job, *out), room = HEAD_BYTES_MAX + 2 * job->ops.count;
            uint8_t *words = rans_encode(&job->ops, states, *out + room);
            size_t words_bytes = (size_t)(*out + room - words);
            store_u32(*out + head, states[0]);
            head += 4;
            if (two) {
                store_u32(*out + head, states[1]);
                head += 4;
            }
            memmove(*out + head, words, words_bytes);
            uint32_t crc = crc32c_update(0, *out, head + words_bytes);
            store_u32(*out + head + words_bytes, crc);
            *length = head + words_bytes + 4;
            result = job->session ? session_store(job->session, job, crc) : DP_OK;
        }
    }
    free(memory);
    free(job->y);
    free(job->channel);
    free(job->ops.op);
    return result;
}
#endif
