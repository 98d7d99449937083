/* Waiting for another thread: spin for a moment, then give way to others, then sleep. */
#ifndef SUBPC_WAITING_H
#define SUBPC_WAITING_H

#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <xmmintrin.h>

/* Nanoseconds. Between two loops of one call usually pass less than 20 us; giving way costs a system call each time. A worker between
 * calls stays awake for as long as the caller of a busy program takes until its next call, and not longer. */
#define SPIN_NS 20000ull
#define GIVE_WAY_NS 1000000ull
/* Looking at the clock takes as long as some pauses. */
#define PAUSES 32

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static inline void sleep_while(_Atomic uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static inline void wake_all(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* One step of waiting; false when it is time to sleep. `since` is 0 before the first step. */
static inline bool keep_waiting(uint64_t *since, uint32_t *steps)
{
    if (++*steps % PAUSES) {
        _mm_pause();
        return true;
    }
    uint64_t now = now_ns();
    if (*since == 0)
        *since = now;
    if (now - *since < SPIN_NS)
        return true;
    sched_yield();
    return now - *since < GIVE_WAY_NS;
}

#endif
