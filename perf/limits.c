/* What this machine can do at best, as one JSON object: the yardsticks of limits.py.
 *
 * Each figure is the best of REPEATS runs, since a limit is what nothing disturbed. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    REPEATS = 200,
    BLOCK = 256 * 1024,       /* bytes: in L2, not in L1 */
    ROWS = 4096,              /* environments */
    ROW = 121,                /* bytes of a squared observation */
};

/* Not static: the compiler must assume that KEEP reads them. */
uint8_t source[BLOCK], target[ROWS * ROW];
double angles[ROWS], sines[ROWS], cosines[ROWS];

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* All memory may have been read and written: nothing before is optimised away. */
#define KEEP() __asm__ volatile("" ::: "memory")

/* The least seconds of one execution of `work`. */
#define BEST(result, work)                          \
    double result = 1e9;                            \
    for (int repeat = 0; repeat < REPEATS; repeat++) { \
        double start = now();                       \
        work;                                       \
        KEEP();                                     \
        double seconds = now() - start;             \
        result = seconds < result ? seconds : result; \
    }

int main(void)
{
    volatile int row = ROW;   /* not known to the compiler, as in the environment */
    for (int i = 0; i < ROWS; i++)
        angles[i] = 0.4 * i / ROWS - 0.2;           /* rad: within cartpole's limit */
    BEST(fill, memset(target, 0, BLOCK))
    BEST(copy, memcpy(target, source, BLOCK))
    int size = row;
    BEST(rows, for (int i = 0; i < ROWS; i++) memset(target + i * size, 0, size))
    BEST(trig, for (int i = 0; i < ROWS; i++) {
        sines[i] = sin(angles[i]);
        cosines[i] = cos(angles[i]);
    })
    /* cartpole's three divisions that are not by constants known to be powers of two. */
    BEST(divisions, for (int i = 0; i < 3 * ROWS; i++) sines[i % ROWS] = 9.8 / angles[i % ROWS])
    printf("{\"fill\": %g, \"copy\": %g, \"rows\": %g, \"trig\": %g, \"divisions\": %g}\n",
           BLOCK / fill, BLOCK / copy, ROWS / rows, ROWS / trig, ROWS / divisions);
    return 0;
}
