/* The checked build's arithmetic: the C compiler's own checks report to us.
 *
 * GCC and Clang, asked by -fsanitize, look at every signed operation, shift and index into an array
 * of known size, and call a function __ubsan_handle_... where one goes wrong. The usual library of
 * these prints and goes on; ours keep the first mistake of each thread, for check_step in _core.pyx
 * to report with the environment that made it. build.py includes this file in every module of the
 * checked build, before all else.
 */
#define PUFFERLIB_CY_MISTAKE (&pufferlib_cy_mistake)

typedef struct { const char *kind, *file; unsigned line; } pufferlib_cy_mistake_t;
typedef struct { const char *file; unsigned line, column; } pufferlib_cy_place_t;

static __thread pufferlib_cy_mistake_t pufferlib_cy_mistake __attribute__((unused));

/* What is passed first, `check`, begins with the place whatever was checked. */
#define PUFFERLIB_CY_HANDLER(name, words, ...)                                            \
    __attribute__((visibility("hidden"))) void __ubsan_handle_##name(__VA_ARGS__);        \
    void __ubsan_handle_##name(__VA_ARGS__) {                                             \
        if (!pufferlib_cy_mistake.kind) {                                                 \
            pufferlib_cy_mistake.file = ((pufferlib_cy_place_t *) check)->file;           \
            pufferlib_cy_mistake.line = ((pufferlib_cy_place_t *) check)->line;           \
            pufferlib_cy_mistake.kind = words;                                            \
        }                                                                                 \
    }
#define PUFFERLIB_CY_BINARY void *check, void *left, void *right
#define PUFFERLIB_CY_UNARY void *check, void *value

PUFFERLIB_CY_HANDLER(add_overflow, "an integer sum overflows", PUFFERLIB_CY_BINARY)
PUFFERLIB_CY_HANDLER(sub_overflow, "an integer difference overflows", PUFFERLIB_CY_BINARY)
PUFFERLIB_CY_HANDLER(mul_overflow, "an integer product overflows", PUFFERLIB_CY_BINARY)
/* Cython looks at divisions before C does, but for an author who asks for cdivision. */
PUFFERLIB_CY_HANDLER(divrem_overflow, "an integer quotient overflows", PUFFERLIB_CY_BINARY)
PUFFERLIB_CY_HANDLER(negate_overflow, "a negated integer overflows", PUFFERLIB_CY_UNARY)
PUFFERLIB_CY_HANDLER(shift_out_of_bounds, "an integer is shifted by more bits than it has, or "
                     "by a negative number, or overflows", PUFFERLIB_CY_BINARY)
PUFFERLIB_CY_HANDLER(out_of_bounds, "an index is outside of its array", PUFFERLIB_CY_UNARY)
