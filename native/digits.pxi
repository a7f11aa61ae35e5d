# Digits: integers, decimals, doubles and time stamps as text, two digits at a time. Included by lineproto.pyx; knows nothing of lines.

cdef char PAIRS[200]
cdef uint64_t TEN[20]
cdef double TEN_FLOAT[7]
# Largest |ts_ms| whose nanoseconds fit InfluxDB's signed 64 bits.
cdef int64_t STAMP_MS_MAX = 9_223_372_036_854


cdef void _fill_tables() noexcept:
    cdef int i
    for i in range(100):
        PAIRS[2 * i] = 48 + i // 10
        PAIRS[2 * i + 1] = 48 + i % 10
    TEN[0] = 1
    for i in range(1, 20):
        TEN[i] = TEN[i - 1] * 10
    for i in range(7):
        TEN_FLOAT[i] = <double>TEN[i]


_fill_tables()


cdef inline char *put_four(char *out, uint32_t value) noexcept nogil:
    """Exactly four digits."""
    cdef uint32_t high = value // 100
    memcpy(out, &PAIRS[2 * high], 2)
    memcpy(out + 2, &PAIRS[2 * (value - high * 100)], 2)
    return out + 4


cdef inline char *put_small(char *out, uint32_t value) noexcept nogil:
    """A value below 10,000 without leading zeros."""
    cdef uint32_t high
    if value < 100:
        if value < 10:
            out[0] = 48 + <char>value
            return out + 1
        memcpy(out, &PAIRS[2 * value], 2)
        return out + 2
    high = value // 100
    if high < 10:
        out[0] = 48 + <char>high
        out += 1
    else:
        memcpy(out, &PAIRS[2 * high], 2)
        out += 2
    memcpy(out, &PAIRS[2 * (value - high * 100)], 2)
    return out + 2


cdef char *put_large(char *out, uint64_t value) noexcept nogil:
    """Any value from 10,000 up."""
    cdef uint64_t high = value // 10000
    out = put_small(out, <uint32_t>high) if high < 10000 else put_large(out, high)
    return put_four(out, <uint32_t>(value - high * 10000))


cdef inline char *put_unsigned(char *out, uint64_t value) noexcept nogil:
    if value < 10000:
        return put_small(out, <uint32_t>value)
    return put_large(out, value)


cdef inline char *put_decimal(char *out, int64_t value, int decimals) noexcept nogil:
    """``value / 10**decimals`` in full, without trailing zeros."""
    cdef uint64_t magnitude = <uint64_t>value
    cdef uint64_t whole, part
    cdef uint32_t narrow
    cdef int i
    if value < 0:
        out[0] = 45
        out += 1
        magnitude = 0 - magnitude
    if decimals == 0:
        return put_unsigned(out, magnitude)
    if magnitude >> 32 == 0 and decimals < 10:
        narrow = <uint32_t>magnitude
        # Constant divisors become multiplications; sensors have one to three decimals.
        if decimals == 1:
            whole = narrow // 10
        elif decimals == 2:
            whole = narrow // 100
        elif decimals == 3:
            whole = narrow // 1000
        else:
            whole = narrow // <uint32_t>TEN[decimals]
        part = narrow - <uint32_t>whole * <uint32_t>TEN[decimals]
    else:
        whole = magnitude // TEN[decimals]
        part = magnitude - whole * TEN[decimals]
    out = put_unsigned(out, whole)
    if part == 0:
        return out
    out[0] = 46
    out += 1
    if decimals == 1:
        out[0] = 48 + <char>part
        return out + 1
    if decimals == 2:
        memcpy(out, &PAIRS[2 * part], 2)
        return out + 2 - (out[1] == 48)
    for i in range(decimals - 1, -1, -1):
        out[i] = 48 + <char>(part % 10)
        part = part // 10
    out += decimals
    while (out - 1)[0] == 48:
        out -= 1
    return out


cdef inline char *put_float(char *out, double value, int *decimals) noexcept nogil:
    """The shortest digits that read back as ``value``.

    A decimal of at most 15 digits that rounds to ``value`` is the shortest one, so most sensor values take an integer path;
    ``decimals`` remembers the column's last number of decimals.
    """
    cdef double magnitude = fabs(value)
    cdef double scaled
    cdef int64_t whole
    cdef int guess = decimals[0]
    if guess >= SHORT_DECIMALS:  # this column holds full doubles: no use guessing for the next few
        decimals[0] = guess - 1
    elif magnitude < 1e9 and magnitude >= 1e-4:  # 1e9 * 10**6 keeps 15 digits; below 1e-4 the exponent form is due
        scaled = magnitude * TEN_FLOAT[guess]
        whole = <int64_t>(scaled + 0.5)
        if <double>whole / TEN_FLOAT[guess] != magnitude:
            for guess in range(SHORT_DECIMALS):
                scaled = magnitude * TEN_FLOAT[guess]
                whole = <int64_t>(scaled + 0.5)
                if <double>whole / TEN_FLOAT[guess] == magnitude:
                    break
            else:
                decimals[0] = SHORT_DECIMALS + FULL_DOUBLES
                return shortest_double(out, value)
            decimals[0] = guess
        return put_decimal(out, -whole if value < 0 else whole, guess)
    return shortest_double(out, value)


cdef inline char *put_copy(char *out, const char *source, Py_ssize_t length) noexcept nogil:
    """Copy in whole registers; both buffers have COPY_BYTES of slack."""
    cdef Py_ssize_t at = 0
    while at < length:
        memcpy(out + at, source + at, COPY_BYTES)
        at += COPY_BYTES
    return out + length


cdef inline char *put_stamp(char *out, int64_t ts_ms, bint nanoseconds) noexcept nogil:
    cdef uint64_t magnitude = <uint64_t>ts_ms
    if ts_ms < 0:
        out[0] = 45
        out += 1
        magnitude = 0 - magnitude
    out = put_unsigned(out, magnitude)
    if nanoseconds and ts_ms != 0:
        memcpy(out, b"000000", 6)
        out += 6
    out[0] = 10
    return out + 1
