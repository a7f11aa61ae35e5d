# Ordered: sorting and medians of a few doubles. Included by smooth.pyx and hampel.pyx.

cdef double _MAD_TO_SIGMA = 1.4826  # of a normal distribution


cdef inline void sort_ascending(double *values, int count) noexcept nogil:
    cdef int i, j
    cdef double value
    for i in range(1, count):
        value = values[i]
        j = i
        while j > 0 and values[j - 1] > value:
            values[j] = values[j - 1]
            j -= 1
        values[j] = value


cdef inline double median_of(const double *ordered, int count) noexcept nogil:
    cdef int half = count // 2
    return ordered[half] if count & 1 else 0.5 * (ordered[half - 1] + ordered[half])
