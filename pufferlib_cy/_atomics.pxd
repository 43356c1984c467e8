"""Atomic words and kernel parking: the only place that knows the operating system.

Every function names its memory order. A word is a plain ``uint32_t`` that is touched by these
functions only. ``park`` and ``wake`` may be used on a word in shared memory: nothing here assumes
that both sides are threads of one process.
"""

from libc.stdint cimport int64_t, uint32_t

cdef extern from * nogil:
    """
    #include <stdint.h>

    /* ---- atomics ------------------------------------------------------------------------- */
    #if defined(_MSC_VER)
      #include <windows.h>
      static __inline uint32_t pcy_load_acquire(const uint32_t *word) {
          return (uint32_t)ReadAcquire((const volatile LONG *)word);
      }
      static __inline uint32_t pcy_load_seq_cst(const uint32_t *word) {
          MemoryBarrier();
          return (uint32_t)ReadAcquire((const volatile LONG *)word);
      }
      static __inline void pcy_store_seq_cst(uint32_t *word, uint32_t value) {
          (void)InterlockedExchange((volatile LONG *)word, (LONG)value);
      }
      static __inline uint32_t pcy_exchange_seq_cst(uint32_t *word, uint32_t value) {
          return (uint32_t)InterlockedExchange((volatile LONG *)word, (LONG)value);
      }
      static __inline uint32_t pcy_add_seq_cst(uint32_t *word, uint32_t value) {
          return (uint32_t)InterlockedExchangeAdd((volatile LONG *)word, (LONG)value);
      }
      static __inline int pcy_compare_exchange_seq_cst(uint32_t *word, uint32_t from, uint32_t to) {
          return (uint32_t)InterlockedCompareExchange((volatile LONG *)word, (LONG)to, (LONG)from)
                 == from;
      }
    #else
      static inline uint32_t pcy_load_acquire(const uint32_t *word) {
          return __atomic_load_n(word, __ATOMIC_ACQUIRE);
      }
      static inline uint32_t pcy_load_seq_cst(const uint32_t *word) {
          return __atomic_load_n(word, __ATOMIC_SEQ_CST);
      }
      static inline void pcy_store_seq_cst(uint32_t *word, uint32_t value) {
          __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
      }
      static inline uint32_t pcy_exchange_seq_cst(uint32_t *word, uint32_t value) {
          return __atomic_exchange_n(word, value, __ATOMIC_SEQ_CST);
      }
      static inline uint32_t pcy_add_seq_cst(uint32_t *word, uint32_t value) {
          return __atomic_fetch_add(word, value, __ATOMIC_SEQ_CST);
      }
      static inline int pcy_compare_exchange_seq_cst(uint32_t *word, uint32_t from, uint32_t to) {
          return __atomic_compare_exchange_n(word, &from, to, 0,
                                             __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
      }
    #endif

    /* ---- one turn of a spin loop: tells the core that nothing is to be gained by haste ---- */
    static inline void pcy_pause(void) {
    #if defined(_MSC_VER)
        YieldProcessor();
    #elif defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
    #elif defined(__aarch64__) || defined(__arm__)
        __asm__ __volatile__("yield");
    #endif
    }

    /* ---- park, wake, clock ---------------------------------------------------------------- */
    #if defined(__linux__)
      #include <linux/futex.h>
      #include <sys/syscall.h>
      #include <time.h>
      #include <unistd.h>
      static inline void pcy_park(uint32_t *word, uint32_t expected, int64_t nanoseconds) {
          struct timespec limit = {(time_t)(nanoseconds / 1000000000),
                                   (long)(nanoseconds % 1000000000)};
          (void)syscall(SYS_futex, word, FUTEX_WAIT, expected, &limit, (void *)0, 0);
      }
      static inline void pcy_wake(uint32_t *word, int count) {
          (void)syscall(SYS_futex, word, FUTEX_WAKE, count, (void *)0, (void *)0, 0);
      }
    #elif defined(_WIN32)
      #include <synchapi.h>
      #pragma comment(lib, "Synchronization.lib")
      static __inline void pcy_park(uint32_t *word, uint32_t expected, int64_t nanoseconds) {
          (void)WaitOnAddress(word, &expected, sizeof expected,
                              (DWORD)((nanoseconds + 999999) / 1000000));
      }
      static __inline void pcy_wake(uint32_t *word, int count) {
          while (count-- > 0) WakeByAddressSingle(word);
      }
    #elif defined(__APPLE__)
      /* What libc++ builds std::atomic::wait on; 3 is UL_COMPARE_AND_WAIT_SHARED. */
      #include <time.h>
      extern int __ulock_wait(uint32_t operation, void *word, uint64_t value,
                              uint32_t microseconds);
      extern int __ulock_wake(uint32_t operation, void *word, uint64_t wake_value);
      static inline void pcy_park(uint32_t *word, uint32_t expected, int64_t nanoseconds) {
          (void)__ulock_wait(3, word, expected, (uint32_t)(nanoseconds / 1000 + 1));
      }
      static inline void pcy_wake(uint32_t *word, int count) {
          while (count-- > 0 && __ulock_wake(3, word, 0) >= 0) { }
      }
    #else
      /* No kernel wait by address: sleep in short naps, so that a wake is never needed. */
      #include <time.h>
      static inline void pcy_park(uint32_t *word, uint32_t expected, int64_t nanoseconds) {
          struct timespec nap = {0, 50000};
          (void)nanoseconds;
          if (pcy_load_acquire(word) == expected) (void)nanosleep(&nap, (void *)0);
      }
      static inline void pcy_wake(uint32_t *word, int count) { (void)word; (void)count; }
    #endif

    /* ---- processes ------------------------------------------------------------------------ */
    #if defined(_WIN32)
      static __inline uint32_t pcy_parent(void) { return 0; }
      static __inline void pcy_leave(int code) { ExitProcess((UINT)code); }
    #else
      #include <unistd.h>
      static inline uint32_t pcy_parent(void) { return (uint32_t)getppid(); }
      static inline void pcy_leave(int code) { _exit(code); }
    #endif

    static inline int64_t pcy_now(void) {
    #if defined(_WIN32)
        LARGE_INTEGER ticks, frequency;
        QueryPerformanceCounter(&ticks);
        QueryPerformanceFrequency(&frequency);
        return (int64_t)((double)ticks.QuadPart * 1e9 / (double)frequency.QuadPart);
    #else
        struct timespec now;
        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    #endif
    }
    """
    uint32_t load_acquire "pcy_load_acquire"(const uint32_t* word) noexcept
    uint32_t load_seq_cst "pcy_load_seq_cst"(const uint32_t* word) noexcept
    void store_seq_cst "pcy_store_seq_cst"(uint32_t* word, uint32_t value) noexcept
    uint32_t exchange_seq_cst "pcy_exchange_seq_cst"(uint32_t* word, uint32_t value) noexcept
    # Returns the value before the addition.
    uint32_t add_seq_cst "pcy_add_seq_cst"(uint32_t* word, uint32_t value) noexcept
    # True: the word was `old` and is now `new`. False: it was something else and is unchanged.
    bint compare_exchange_seq_cst "pcy_compare_exchange_seq_cst"(
        uint32_t* word, uint32_t old, uint32_t new) noexcept

    void pause "pcy_pause"() noexcept
    # Sleeps in the kernel while *word == expected, at most `nanoseconds`; may return early.
    void park "pcy_park"(uint32_t* word, uint32_t expected, int64_t nanoseconds) noexcept
    # Wakes at most `count` of those who sleep on the word.
    void wake "pcy_wake"(uint32_t* word, int count) noexcept
    # Monotonic clock, nanoseconds.
    int64_t now "pcy_now"() noexcept
    # The process that started this one, or that has taken it over (POSIX).
    uint32_t parent "pcy_parent"() noexcept
    # Ends this process at once.
    void leave "pcy_leave"(int code) noexcept
