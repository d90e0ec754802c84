// A library to open in tests of engine/device/opened_library.h.

#include <cstdarg>

extern "C" {

int fake_sum(int a, int b) {
    return a + b;
}
double fake_sum_of(int count, ...) {
    va_list numbers;
    va_start(numbers, count);
    double sum = 0;
    for (int i = 0; i < count; ++i) sum += va_arg(numbers, double);
    va_end(numbers);
    return sum;
}
int fake_datum = 42;
}
