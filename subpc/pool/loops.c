/* Parallel loops: what a library calls, and how the tasks of a loop are shared out. */
#include <stddef.h>

#include "pool.h"
#include "waiting.h"

#define EXPORTED __attribute__((visibility("default")))

static _Thread_local uint32_t own_threads = 1;
static _Thread_local bool in_call;

static void run_task(struct team *team, int32_t task)
{
    if (team->function(task, &team->group, team->data))
        atomic_store_explicit(&team->failed, 1, memory_order_relaxed);
    if (atomic_fetch_sub(&team->left, 1) == 1 && atomic_load(&team->caller_sleeps))
        wake_all(&team->left);
}

/* Take and run what is left of the loop, own task first, so that data stays where it was in the loop before.
 * A loop whose tasks are all taken is never touched: its caller may have gone on to the next one, with other data. */
void take_part(struct team *team, uint64_t loop, uint32_t own)
{
    uint32_t tasks = TASKS_OF(loop);
    for (uint32_t i = 0; i < tasks; i++) {
        uint32_t task = (own + i) % tasks;
        uint64_t before = atomic_load(&team->taken[task].loop);
        if (before < loop && atomic_compare_exchange_strong(&team->taken[task].loop, &before, loop))
            run_task(team, (int32_t)task);
        if (atomic_load_explicit(&team->loop, memory_order_relaxed) != loop)
            return;
    }
}

static void publish(struct team *team, uint32_t tasks)
{
    uint64_t number = (atomic_load_explicit(&team->loop, memory_order_relaxed) >> TASK_BITS) + 1;
    atomic_store(&team->loop, number << TASK_BITS | tasks);
    if (atomic_load(&team->sleepers)) {
        atomic_fetch_add(&team->wake, 1);
        wake_all(&team->wake);
    }
}

static void wait_until_finished(struct team *team)
{
    uint64_t since = 0;
    uint32_t steps = 0, left;
    while ((left = atomic_load(&team->left))) {
        if (keep_waiting(&since, &steps))
            continue;
        atomic_store(&team->caller_sleeps, 1);
        if ((left = atomic_load(&team->left)))
            sleep_while(&team->left, left);
        atomic_store(&team->caller_sleeps, 0);
    }
}

static int run_alone(task_function function, void *data, int32_t tasks)
{
    struct group group = {NULL, tasks};
    int failed = 0;
    for (int32_t task = 0; task < tasks; task++)
        failed |= function(task, &group, data);
    return failed ? -1 : 0;
}

/* TVMBackendParallelLaunch: run function(task, group, data) for every task; 0 tasks means one for each thread of this call. */
EXPORTED int subpc_launch(task_function function, void *data, int32_t tasks)
{
    uint32_t threads = own_threads;
    if (tasks <= 0)
        tasks = (int32_t)threads;
    struct team *team = threads < 2 || tasks < 2 || tasks > MAX_TASKS || is_worker ? NULL : team_of_this_thread();
    if (!team)
        return run_alone(function, data, tasks);
    team->function = function;
    team->data = data;
    team->group = (struct group){NULL, tasks};
    atomic_store_explicit(&team->failed, 0, memory_order_relaxed);
    atomic_store_explicit(&team->left, (uint32_t)tasks, memory_order_relaxed);
    publish(team, (uint32_t)tasks);
    recruit(team, threads - 1); /* after it: who finds the last call's end would leave at once */
    take_part(team, atomic_load_explicit(&team->loop, memory_order_relaxed), 0);
    wait_until_finished(team);
    if (!in_call)
        publish(team, 0);
    return atomic_load_explicit(&team->failed, memory_order_relaxed) ? -1 : 0;
}

/* Call an entry point of a library with so many threads. */
EXPORTED int subpc_call(entry_function entry, const void *arguments, int32_t count, void *result, int32_t threads)
{
    uint32_t mxcsr = _mm_getcsr(), before = own_threads;
    _mm_setcsr(DEFAULT_MXCSR);
    own_threads = (uint32_t)threads;
    in_call = true;
    int code = entry(NULL, arguments, count, result);
    in_call = false;
    own_threads = before;
    struct team *team = existing_team();
    if (threads > 1 && team && atomic_load_explicit(&team->members, memory_order_relaxed))
        publish(team, 0);
    _mm_setcsr(mxcsr);
    return code;
}

/* How many threads the calling thread's loops get outside of subpc_call. */
EXPORTED void subpc_use_threads(int32_t threads)
{
    own_threads = threads > 0 ? (uint32_t)threads : 1;
}

static int nothing(int32_t task, struct group *group, void *data)
{
    (void)task, (void)group, (void)data;
    return 0;
}

/* Start the workers for so many threads now instead of in the first loop. */
EXPORTED void subpc_start_workers(int32_t threads)
{
    uint32_t before = own_threads;
    subpc_use_threads(threads);
    subpc_launch(nothing, NULL, 0);
    own_threads = before;
}
