/* First look of the encoder: how well each of the 16 predictors would do, one float lane each.
 * Floats only guide the choice here; the coded path is integers. Still every operation is an IEEE single add or multiply in a fixed
 * order (no fused ones, no estimates), so that every machine and the twin make the same choice and the same bytes. */
#ifndef ICECAP_ANALYSE_H
#define ICECAP_ANALYSE_H
#include "model.h"

typedef float Lanes __attribute__((vector_size(64)));
typedef int32_t LaneBits __attribute__((vector_size(64)));
typedef struct { float mean[16]; int64_t logs[16]; } Scores;

static float lane_level[WARM_UP + 1][16], lane_slope[WARM_UP + 1][16];

static void analyse_init(void) {
    for (int row = 0; row <= WARM_UP; row++)
        for (int i = 0; i < 16; i++) {
            lane_level[row][i] = (float)LEVEL_GAIN[i * (WARM_UP + 1) + row] / 65536.0f;
            lane_slope[row][i] = (float)SLOPE_GAIN[i * (WARM_UP + 1) + row] / 65536.0f;
        }
}

#define ALL(value) ((Lanes){} + (value))

/* step > 0: the bounded closed loop with that quantiser step; 0: open loop. */
static inline __attribute__((always_inline)) void score_lanes(const int32_t *y, int rows, float step, Scores *scores) {
    Lanes level = {}, slope = {}, sum = {}, rate, turn;
    LaneBits logs = {}, sign_off;
    int64_t totals[16] = {0};
    float inverse = step > 0 ? 1.0f / step : 0.0f, first = (float)y[0];
    const float nearest = 12582912.0f; /* 1.5 * 2**23: adding and taking it away rounds to an integer */
    for (int i = 0; i < 16; i++) sign_off[i] = 0x7fffffff;
    for (int row = 1; row < rows; row++) {
        int gain = row_gain(row);
        memcpy(&rate, lane_level[gain], sizeof rate);
        memcpy(&turn, lane_slope[gain], sizeof turn);
        Lanes mean = level + slope, error = ALL((float)y[row] - first) - mean, seen;
        if (step > 0) {
            Lanes rounded = (mean + nearest) - nearest;
            Lanes steps = (((ALL((float)y[row] - first) - rounded) * inverse) + nearest) - nearest;
            seen = (Lanes)((LaneBits)steps & sign_off);
            error = steps * step;
        } else {
            seen = (Lanes)((LaneBits)error & sign_off);
        }
        level = mean + rate * error;
        slope = slope + turn * error;
        sum += seen;
        logs += ((LaneBits)(seen + 0.3f)) >> 12; /* a float's bits are its logarithm, near enough */
        if ((row & 1023) == 0) { /* 2**20 a row: before they overflow */
            for (int i = 0; i < 16; i++) totals[i] += logs[i];
            logs = (LaneBits){};
        }
    }
    for (int i = 0; i < 16; i++) {
        scores->mean[i] = sum[i] / (float)(rows - 1);
        scores->logs[i] = totals[i] + logs[i];
    }
}

#define SCORE(name, attribute) \
    attribute static void name(const int32_t *y, int rows, float step, Scores *scores) { \
        if (step > 0) score_lanes(y, rows, step, scores); \
        else score_lanes(y, rows, 0, scores); \
    }

SCORE(score_plain, )
#if defined(__x86_64__) && defined(__GNUC__)
SCORE(score_avx2, __attribute__((target("avx2"))))
SCORE(score_avx512, __attribute__((target("avx512f"))))
#endif

static void (*score)(const int32_t *, int, float, Scores *) = score_plain;

/* Chosen at run time: one wheel for every x86-64; elsewhere the compiler's own vectors. */
static void score_init(void) {
    analyse_init();
#if defined(__x86_64__) && defined(__GNUC__)
    if (__builtin_cpu_supports("avx2")) score = score_avx2;
    if (__builtin_cpu_supports("avx512f")) score = score_avx512;
#endif
}
#endif
