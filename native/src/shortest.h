/* The shortest decimal digits that read back as the same double, in the form of Python's repr without a trailing ".0". */
#ifndef ICECAP_SHORTEST_H
#define ICECAP_SHORTEST_H
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *shortest_double(char *out, double value) {
    char text[32];
    int precision = 15;
    if (value == 0) { if (1 / value < 0) *out++ = '-'; *out++ = '0'; return out; }
    do snprintf(text, sizeof text, "%.*e", precision - 1, value); while (strtod(text, 0) != value && ++precision <= 17);
    char *p = text; if (*p == '-') { *out++ = '-'; p++; }
    char digits[20]; int n = 0; digits[n++] = *p++;
    if (*p == '.') { p++; while (*p != 'e') digits[n++] = *p++; }
    int exponent = atoi(p + 1);
    while (n > 1 && digits[n - 1] == '0') n--;
    if (exponent < -4 || exponent >= 16) {
        *out++ = digits[0];
        if (n > 1) { *out++ = '.'; memcpy(out, digits + 1, n - 1); out += n - 1; }
        return out + sprintf(out, "e%c%02d", exponent < 0 ? '-' : '+', exponent < 0 ? -exponent : exponent);
    }
    if (exponent < 0) {
        *out++ = '0'; *out++ = '.';
        for (int i = -1; i > exponent; i--) *out++ = '0';
        memcpy(out, digits, n); return out + n;
    }
    for (int i = 0; i <= exponent || i < n; i++) { if (i == exponent + 1) *out++ = '.'; *out++ = i < n ? digits[i] : '0'; }
    return out;
}
#endif
