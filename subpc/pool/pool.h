/* The worker threads of this process, shared by all libraries and all calling threads.
 *
 * A compiled library runs its parallel loops through a pointer of its own, which subpc/library/shared_library.py sets to subpc_launch. The thread that
 * calls a model takes part in every loop, so that a call ends even if it gets no worker at all: workers only make it faster. The parts
 * of a loop depend on the number of threads that the model was given and never on who computes them, hence neither do results.
 *
 *   team     what one calling thread needs to share work: the loop at hand, and which of its tasks are taken.
 *   worker   a thread that belongs to at most one team at a time, and to none between calls. Free workers are on one stack.
 *
 * Waiting is spinning for a moment, then giving way to other threads, then sleeping: loops follow each other within microseconds,
 * but an idle process must not use a CPU. A child that is forked at any time starts with no workers and makes its own.
 */
#ifndef SUBPC_POOL_H
#define SUBPC_POOL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* More tasks than that are not made: a library asks for as many as there are threads. */
#define MAX_TASKS 1024
#define CACHE_LINE 64
/* IEEE arithmetic, rounding to nearest, no exceptions: whatever the calling program has set, answers are the same. */
#define DEFAULT_MXCSR 0x1f80u
/* A loop's word is its number above so many bits, which count its tasks. */
#define TASK_BITS 16
#define TASKS_OF(loop) ((uint32_t)((loop) & ((1u << TASK_BITS) - 1)))

/* tvm/runtime/c_backend_api.h: TVMParallelGroupEnv, FTVMParallelLambda. */
struct group {
    void *sync_handle;
    int32_t tasks;
};
typedef int (*task_function)(int32_t task, struct group *group, void *data);
/* tvm/ffi/c_api.h: TVMFFISafeCallType. */
typedef int (*entry_function)(void *self, const void *arguments, int32_t count, void *result);

struct team {
    /* The number of the loop and the number of its tasks: one word, so that both always belong together. No tasks
     * means that the call is over and workers may leave. */
    _Alignas(CACHE_LINE) _Atomic uint64_t loop;
    task_function function;
    void *data;
    struct group group;
    _Alignas(CACHE_LINE) _Atomic uint32_t left;  /* tasks that are not finished; also what the caller sleeps on */
    _Atomic uint32_t caller_sleeps;
    _Atomic int failed;
    _Alignas(CACHE_LINE) _Atomic uint32_t wake;  /* what members sleep on; changed for every loop that finds sleepers */
    _Atomic uint32_t sleepers;
    _Atomic uint32_t members;
    struct team *next, *all;
    /* The last loop in which somebody took task i. A task is taken by raising its entry from below to the loop's number. Each has a
     * cache line of its own, as its usual taker is always the same thread. */
    struct {
        _Alignas(CACHE_LINE) _Atomic uint64_t loop;
    } taken[MAX_TASKS];
};

/* workers.c */

/* Whether the calling thread is a worker: it has no team of its own. */
extern _Thread_local bool is_worker;
/* The team of the calling thread, made if need be; NULL without memory. */
struct team *team_of_this_thread(void);
/* The same, or NULL where none was made. */
struct team *existing_team(void);
/* Let up to `wanted` workers in all work for the team. */
void recruit(struct team *team, uint32_t wanted);

/* loops.c */

/* Take and run what is left of a loop, task `own` first. */
void take_part(struct team *team, uint64_t loop, uint32_t own);

#endif
