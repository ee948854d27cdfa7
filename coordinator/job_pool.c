#include "coordinator/job_pool.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/must.h"

enum { MAX_THREADS = 8 };

struct job_queue {
    struct job *first, *last;
};

struct job_pool {
    pthread_mutex_t lock; /* guards waiting, finished and closing */
    pthread_cond_t work;
    struct job_queue waiting, finished;
    bool closing;
    uint32_t pending; /* the loop's thread only */
    uint32_t threads;
    pthread_t thread[MAX_THREADS];
    int wake_fd; /* eventfd: something is finished */
    struct event *wake;
};

static void queue_push(struct job_queue *q, struct job *job)
{
    job->next = NULL;
    if (q->last)
        q->last->next = job;
    else
        q->first = job;
    q->last = job;
}

static struct job *queue_pop(struct job_queue *q)
{
    struct job *job = q->first;
    if (job) {
        q->first = job->next;
        if (!q->first)
            q->last = NULL;
    }
    return job;
}

static struct job *wait_for_job(struct job_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    while (!pool->waiting.first && !pool->closing)
        pthread_cond_wait(&pool->work, &pool->lock);
    struct job *job = pool->closing ? NULL : queue_pop(&pool->waiting);
    pthread_mutex_unlock(&pool->lock);
    return job;
}

static void *help(void *arg)
{
    struct job_pool *pool = arg;
    for (struct job *job; (job = wait_for_job(pool));) {
        job->run(job);
        pthread_mutex_lock(&pool->lock);
        queue_push(&pool->finished, job);
        pthread_mutex_unlock(&pool->lock);
        uint64_t one = 1;
        ssize_t ignored =
            write(pool->wake_fd, &one, sizeof one); /* fails only when the counter is full: the loop is awake then */
        (void)ignored;
    }
    return NULL;
}

static void hand_back(struct job_pool *pool)
{
    for (;;) {
        pthread_mutex_lock(&pool->lock);
        struct job *job = queue_pop(&pool->finished);
        pthread_mutex_unlock(&pool->lock);
        if (!job)
            return;
        pool->pending--;
        job->done(job);
    }
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    uint64_t count;
    ssize_t ignored = read(fd, &count, sizeof count);
    (void)ignored;
    hand_back(arg);
}

enum err job_pool_open(struct job_pool **out, struct event_base *loop, uint32_t threads, struct why *why)
{
    must(threads > 0 && threads <= MAX_THREADS);
    struct job_pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return because(why, ERR_NOMEM, "could not start the helper threads: no memory");
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pool->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pool->wake = pool->wake_fd < 0 ? NULL : event_new(loop, pool->wake_fd, EV_READ | EV_PERSIST, on_wake, pool);
    if (!pool->wake || event_add(pool->wake, NULL)) {
        enum err e = because_errno(why, ERR_IO, "could not start the helper threads");
        job_pool_close(pool);
        return e;
    }
    while (pool->threads < threads) {
        int error = pthread_create(&pool->thread[pool->threads], NULL, help, pool);
        if (error) {
            job_pool_close(pool);
            return because(why, ERR_NOMEM, "could not start helper thread %u of %u: the limit of threads is reached",
                           pool->threads + 1, threads);
        }
        pool->threads++;
    }
    *out = pool;
    return OK;
}

void job_pool_close(struct job_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->closing = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (uint32_t i = 0; i < pool->threads; i++)
        pthread_join(pool->thread[i], NULL);
    hand_back(pool);
    for (struct job *job; (job = queue_pop(&pool->waiting));)
        job->done(job);
    if (pool->wake)
        event_free(pool->wake);
    if (pool->wake_fd >= 0)
        close(pool->wake_fd);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

void job_pool_submit(struct job_pool *pool, struct job *job)
{
    pool->pending++;
    pthread_mutex_lock(&pool->lock);
    queue_push(&pool->waiting, job);
    pthread_cond_signal(&pool->work);
    pthread_mutex_unlock(&pool->lock);
}

uint32_t job_pool_pending(const struct job_pool *pool)
{
    return pool->pending;
}
