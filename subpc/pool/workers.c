/* Workers: made when a caller first wants them, lent to one team at a time, made anew in a forked child. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "pool.h"
#include "waiting.h"

struct worker {
    _Alignas(CACHE_LINE) _Atomic(struct team *) team;
    _Atomic uint32_t sleeps;
    uint32_t own; /* the task that it takes first */
    struct worker *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards the lists below and `workers` */
static struct worker *free_workers;
static struct team *free_teams, *all_teams;
static _Atomic uint32_t workers;
static _Atomic uint32_t free_count; /* a look at the stack without the lock */

static pthread_key_t team_key; /* gives the team of a thread that ends to the next one */
static _Thread_local struct team *own_team;
_Thread_local bool is_worker;

/* A member's life: take part in loops until the call is over. */
static void serve(struct team *team, uint32_t own)
{
    uint64_t done = 0, since = 0;
    uint32_t steps = 0;
    for (;;) {
        uint32_t wake = atomic_load(&team->wake);
        uint64_t loop = atomic_load(&team->loop);
        if (loop != done) {
            if (!TASKS_OF(loop))
                return;
            take_part(team, loop, own);
            done = loop;
            since = steps = 0;
        } else if (!keep_waiting(&since, &steps)) {
            atomic_fetch_add(&team->sleepers, 1);
            if (atomic_load(&team->loop) == done)
                sleep_while(&team->wake, wake);
            atomic_fetch_sub(&team->sleepers, 1);
            since = steps = 0;
        }
    }
}

static struct team *wait_for_team(struct worker *self)
{
    uint64_t since = 0;
    uint32_t steps = 0;
    struct team *team;
    while (!(team = atomic_load(&self->team))) {
        if (keep_waiting(&since, &steps))
            continue;
        atomic_store(&self->sleeps, 1);
        if (!atomic_load(&self->team))
            sleep_while(&self->sleeps, 1);
        atomic_store(&self->sleeps, 0);
    }
    return team;
}

static void *worker_main(void *argument)
{
    struct worker *self = argument;
    is_worker = true;
    _mm_setcsr(DEFAULT_MXCSR);
    for (;;) {
        struct team *team = wait_for_team(self);
        serve(team, self->own);
        atomic_store(&self->team, NULL);
        atomic_fetch_sub(&team->members, 1);
        pthread_mutex_lock(&lock);
        self->next = free_workers;
        free_workers = self;
        atomic_fetch_add(&free_count, 1);
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

/* Move a new thread to a CPU of its own: the scheduler may leave it on its creator's for 50 ms, as both are awake. It is not pinned:
 * it may wander off again when other programs need the CPU. */
static void place(pthread_t thread, uint32_t number)
{
    cpu_set_t allowed, one;
    if (pthread_getaffinity_np(pthread_self(), sizeof allowed, &allowed))
        return;
    int here = sched_getcpu(), count = CPU_COUNT(&allowed);
    if (count < 2 || here < 0)
        return;
    int skip = (int)(number % (uint32_t)(count - 1));
    for (int step = 1; step < CPU_SETSIZE; step++) {
        int cpu = (here + step) % CPU_SETSIZE;
        if (CPU_ISSET(cpu, &allowed) && cpu != here && skip-- == 0) {
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            pthread_setaffinity_np(thread, sizeof one, &one);
            pthread_setaffinity_np(thread, sizeof allowed, &allowed);
            return;
        }
    }
}

/* A new worker, not yet on any list; NULL where the system gives no more threads. The lock is held. */
static struct worker *make_worker(void)
{
    struct worker *worker = aligned_alloc(CACHE_LINE, (sizeof *worker + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE);
    if (!worker)
        return NULL;
    atomic_init(&worker->team, NULL);
    atomic_init(&worker->sleeps, 0);
    worker->next = NULL;
    /* Signals are for the program's own threads. */
    sigset_t every, before;
    sigfillset(&every);
    pthread_sigmask(SIG_SETMASK, &every, &before);
    pthread_t thread;
    int code = pthread_create(&thread, NULL, worker_main, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code) {
        free(worker);
        return NULL;
    }
    pthread_setname_np(thread, "subpc-worker");
    place(thread, workers);
    pthread_detach(thread);
    workers++;
    return worker;
}

void recruit(struct team *team, uint32_t wanted)
{
    if (atomic_load_explicit(&team->members, memory_order_relaxed) >= wanted)
        return;
    if (!atomic_load_explicit(&free_count, memory_order_relaxed) && workers >= wanted)
        return; /* all are busy for other callers */
    pthread_mutex_lock(&lock);
    while (atomic_load(&team->members) < wanted) {
        struct worker *worker = free_workers;
        if (worker) {
            free_workers = worker->next;
            atomic_fetch_sub(&free_count, 1);
        } else if (workers >= wanted || !(worker = make_worker())) {
            break;
        }
        worker->own = atomic_fetch_add(&team->members, 1) + 1;
        atomic_store(&worker->team, team);
        if (atomic_load(&worker->sleeps)) {
            atomic_store(&worker->sleeps, 0);
            wake_all(&worker->sleeps);
        }
    }
    pthread_mutex_unlock(&lock);
}

struct team *team_of_this_thread(void)
{
    if (own_team)
        return own_team;
    pthread_mutex_lock(&lock);
    struct team *team = free_teams;
    if (team)
        free_teams = team->next;
    pthread_mutex_unlock(&lock);
    if (!team) {
        size_t size = (sizeof *team + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
        if (!(team = aligned_alloc(CACHE_LINE, size)))
            return NULL;
        memset(team, 0, size);
        pthread_mutex_lock(&lock);
        team->all = all_teams;
        all_teams = team;
        pthread_mutex_unlock(&lock);
    }
    pthread_setspecific(team_key, team);
    return own_team = team;
}

struct team *existing_team(void)
{
    return own_team;
}

static void give_team_back(void *team)
{
    pthread_mutex_lock(&lock);
    ((struct team *)team)->next = free_teams;
    free_teams = team;
    pthread_mutex_unlock(&lock);
}

/* Only the thread that forks lives on in the child, and the lists may have been copied in the middle of a change. */
static void after_fork(void)
{
    lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    free_workers = NULL;
    workers = 0;
    atomic_store(&free_count, 0);
    free_teams = NULL;
    for (struct team *team = all_teams; team; team = team->all) {
        atomic_store(&team->members, 0);
        atomic_store(&team->sleepers, 0);
        atomic_store(&team->caller_sleeps, 0);
        if (team != own_team) {
            team->next = free_teams;
            free_teams = team;
        }
    }
}

__attribute__((constructor)) static void set_up(void)
{
    pthread_key_create(&team_key, give_team_back);
    pthread_atfork(NULL, NULL, after_fork);
}
