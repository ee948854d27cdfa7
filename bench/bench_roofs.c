/*
 * bench_roofs: what this machine can do at most, measured in the layout of the engine: one pinned thread a core, weights
 * in a shared-memory segment as the workers map them.
 *
 *   bench_roofs [--bytes N] [--threads N] [--rounds N] [--only read,int8,f32,barrier,channel]
 *
 * Prints one JSON object, figures by number of threads:
 *   read_gbs      10^9 bytes a second of a read-only pass over N bytes, each thread its share
 *   int8_gmacs    10^9 multiply-accumulates a second on registers by the instruction named in int8_by
 *   f32_gmacs     the same in single precision
 *   barrier_us    one meeting of two processes in the engine's barrier
 *   channel_us    one message to another process and its answer, over the engine's channel (ZeroMQ)
 * Each is the best of the rounds: a roof is what the machine gave once, undisturbed.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/must.h"
#include "model/kernels/kernels.h"
#include "proto/channel.h"
#include "shm/arena.h"
#include "shm/barrier.h"
#include "shm/instance.h"

enum {
    THREADS_MAX = 512,
    SPINS = 400000, /* turns of a register loop a round: milliseconds */
    MEETINGS = 20000,
    MESSAGES = 2000,
    MESSAGE_BYTES = 256, /* about a plan of eight sequences */
    WAIT_MS = 10000,
};

/* ---- cores ---- */

static uint32_t list_cores(size_t cores[THREADS_MAX])
{
    cpu_set_t set;
    uint32_t count = 0;
    must(sched_getaffinity(0, sizeof set, &set) == 0);
    for (size_t cpu = 0; cpu < CPU_SETSIZE && count < THREADS_MAX; cpu++)
        if (CPU_ISSET(cpu, &set))
            cores[count++] = cpu;
    return count;
}

static void pin(size_t cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    must(sched_setaffinity(0, sizeof set, &set) == 0);
}

/* ---- work that threads do at once ---- */

struct roof_job {
    void (*run)(const uint8_t *from, size_t bytes);
    const uint8_t *memory;
    size_t bytes; /* of all threads */
    uint32_t rounds;
    uint32_t threads;
    pthread_barrier_t start;
};

struct roof_thread {
    struct roof_job *job;
    pthread_t id;
    uint32_t index;
    size_t cpu;
    uint64_t took_us[64]; /* by round */
};

enum { ROUNDS_MAX = sizeof((struct roof_thread *)0)->took_us / sizeof(uint64_t) };

static void *run_thread(void *arg)
{
    struct roof_thread *t = arg;
    struct roof_job *job = t->job;
    size_t lines = job->bytes / CACHE_LINE, first = lines * t->index / job->threads,
           last = lines * (t->index + 1) / job->threads;
    pin(t->cpu);
    for (uint32_t r = 0; r < job->rounds; r++) {
        pthread_barrier_wait(&job->start);
        uint64_t began = now_us();
        job->run(job->memory + first * CACHE_LINE, (last - first) * CACHE_LINE);
        t->took_us[r] = now_us() - began;
    }
    return NULL;
}

/* Seconds of the best round; a round is as long as its slowest thread. */
static double best_seconds(struct roof_job *job, uint32_t threads, const size_t *cores)
{
    static struct roof_thread t[THREADS_MAX];
    job->threads = threads;
    must(pthread_barrier_init(&job->start, NULL, threads) == 0);
    for (uint32_t i = 0; i < threads; i++) {
        t[i] = (struct roof_thread){.job = job, .index = i, .cpu = cores[i]};
        must(pthread_create(&t[i].id, NULL, run_thread, &t[i]) == 0);
    }
    for (uint32_t i = 0; i < threads; i++)
        pthread_join(t[i].id, NULL);
    pthread_barrier_destroy(&job->start);
    uint64_t best = UINT64_MAX;
    for (uint32_t r = 0; r < job->rounds; r++) {
        uint64_t slowest = 1;
        for (uint32_t i = 0; i < threads; i++)
            slowest = t[i].took_us[r] > slowest ? t[i].took_us[r] : slowest;
        best = slowest < best ? slowest : best;
    }
    return (double)best * 1e-6;
}

/* ---- reading ---- */

typedef uint64_t line_words __attribute__((vector_size(CACHE_LINE)));

/* Four sums, so that no load waits for an addition. */
#define READ_LINES(from, bytes)                                          \
    do {                                                                 \
        const line_words *at = (const line_words *)(const void *)(from); \
        line_words sum[4] = {{0}, {0}, {0}, {0}};                        \
        for (size_t n = (bytes) / sizeof *at / 4; n; n--, at += 4) {     \
            sum[0] ^= at[0], sum[1] ^= at[1];                            \
            sum[2] ^= at[2], sum[3] ^= at[3];                            \
        }                                                                \
        sum[0] ^= sum[1] ^ sum[2] ^ sum[3];                              \
        __asm__ volatile("" ::"m"(sum[0]));                              \
    } while (0)

static void read_plain(const uint8_t *from, size_t bytes)
{
    READ_LINES(from, bytes);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void read_avx2(const uint8_t *from, size_t bytes)
{
    READ_LINES(from, bytes);
}

__attribute__((target("avx512f"))) static void read_avx512(const uint8_t *from, size_t bytes)
{
    READ_LINES(from, bytes);
}
#endif

/* ---- arithmetic on registers; 12 chains hide an instruction's latency ---- */

struct arithmetic {
    const char *by; /* instructions */
    void (*run)(const uint8_t *from, size_t bytes);
    double macs; /* of one run */
};

#define TWELVE(OP) OP(0) OP(1) OP(2) OP(3) OP(4) OP(5) OP(6) OP(7) OP(8) OP(9) OP(10) OP(11)
#define CLOBBERS                                                                                               \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", \
        "xmm13", "cc"
#define REGISTER_LOOP(ZEROS, OPS)                                                           \
    do {                                                                                    \
        uint64_t turns = SPINS;                                                             \
        (void)from, (void)bytes;                                                            \
        __asm__ volatile(ZEROS "1:\n\t" OPS "dec %0\n\tjnz 1b" : "+r"(turns) : : CLOBBERS); \
    } while (0)

#if defined(__x86_64__)
#define ZERO_ZMM(i) "vpxord %%zmm" #i ", %%zmm" #i ", %%zmm" #i "\n\t"
#define ZERO_YMM(i) "vpxor %%ymm" #i ", %%ymm" #i ", %%ymm" #i "\n\t"
#define ZERO_XMM(i) "xorps %%xmm" #i ", %%xmm" #i "\n\t"

__attribute__((target("avx512f,avx512vnni"))) static void int8_avx512(const uint8_t *from, size_t bytes)
{
#define OP(i) "vpdpbusd %%zmm13, %%zmm12, %%zmm" #i "\n\t"
    REGISTER_LOOP("", TWELVE(OP));
#undef OP
}

/* Four products of 16 x 64 x 16 in a turn, of zeros, which take as long. The shapes are those that LDTILECFG reads. */
static void int8_amx(const uint8_t *from, size_t bytes)
{
    static const struct {
        uint8_t palette, zero[15];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shapes = {1, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
    uint64_t turns = SPINS;
    (void)from, (void)bytes;
    __asm__ volatile("ldtilecfg %1\n"
                     "1:\n\t"
                     "tdpbssd %%tmm6, %%tmm4, %%tmm0\n\t"
                     "tdpbssd %%tmm7, %%tmm4, %%tmm1\n\t"
                     "tdpbssd %%tmm6, %%tmm5, %%tmm2\n\t"
                     "tdpbssd %%tmm7, %%tmm5, %%tmm3\n\t"
                     "dec %0\n\tjnz 1b\n\t"
                     "tilerelease"
                     : "+r"(turns)
                     : "m"(shapes)
                     : "cc");
}

/* As many registers as an AVX2 kernel has; the products fall into ymm13 and are then added to the chain. */
__attribute__((target("avx2"))) static void int8_avx2(const uint8_t *from, size_t bytes)
{
#define OP(i)                                  \
    "vpmaddubsw %%ymm12, %%ymm12, %%ymm13\n\t" \
    "vpmaddwd %%ymm12, %%ymm13, %%ymm13\n\t"   \
    "vpaddd %%ymm13, %%ymm" #i ", %%ymm" #i "\n\t"
    REGISTER_LOOP("", TWELVE(OP));
#undef OP
}

/* Denormal or not-a-number inputs could be slow: all registers are cleared first, a product of zeros takes as long. */
__attribute__((target("avx512f"))) static void f32_avx512(const uint8_t *from, size_t bytes)
{
#define OP(i) "vfmadd231ps %%zmm13, %%zmm12, %%zmm" #i "\n\t"
    REGISTER_LOOP(TWELVE(ZERO_ZMM) ZERO_ZMM(12) ZERO_ZMM(13), TWELVE(OP));
#undef OP
}

__attribute__((target("avx2,fma"))) static void f32_avx2(const uint8_t *from, size_t bytes)
{
#define OP(i) "vfmadd231ps %%ymm13, %%ymm12, %%ymm" #i "\n\t"
    REGISTER_LOOP(TWELVE(ZERO_YMM) ZERO_YMM(12) ZERO_YMM(13), TWELVE(OP));
#undef OP
}

static void f32_sse(const uint8_t *from, size_t bytes)
{
#define OP(i) "movaps %%xmm12, %%xmm13\n\tmulps %%xmm12, %%xmm13\n\taddps %%xmm13, %%xmm" #i "\n\t"
    REGISTER_LOOP(TWELVE(ZERO_XMM) ZERO_XMM(12) ZERO_XMM(13), TWELVE(OP));
#undef OP
}
#endif

static struct arithmetic best_int8(void)
{
#if defined(__x86_64__)
    if (kernels_choose("amx")) /* which asks Linux for the registers */
        return (struct arithmetic){"tdpbssd tmm", int8_amx, 4.0 * 16 * 64 * 16 * SPINS};
    if (__builtin_cpu_supports("avx512vnni"))
        return (struct arithmetic){"vpdpbusd zmm", int8_avx512, 12.0 * 64 * SPINS};
    if (__builtin_cpu_supports("avx2"))
        return (struct arithmetic){"vpmaddubsw, vpmaddwd, vpaddd ymm", int8_avx2, 12.0 * 32 * SPINS};
#endif
    return (struct arithmetic){NULL, NULL, 0};
}

static struct arithmetic best_f32(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        return (struct arithmetic){"vfmadd231ps zmm", f32_avx512, 12.0 * 16 * SPINS};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return (struct arithmetic){"vfmadd231ps ymm", f32_avx2, 12.0 * 8 * SPINS};
    return (struct arithmetic){"mulps, addps xmm", f32_sse, 12.0 * 4 * SPINS};
#else
    return (struct arithmetic){NULL, NULL, 0};
#endif
}

/* ---- figures by number of threads: 1, 2, 4, …, all ---- */

static uint32_t next_count(uint32_t threads, uint32_t most)
{
    return threads == most ? most + 1 : threads * 2 < most ? threads * 2 : most;
}

static void print_by_threads(const char *name, struct roof_job *job, double work, uint32_t most, const size_t *cores)
{
    printf(", \"%s\": {", name);
    for (uint32_t n = 1; n <= most; n = next_count(n, most)) {
        double each = job->memory ? work : work * n; /* memory is shared out, arithmetic is done by each */
        printf("%s\"%u\": %.2f", n > 1 ? ", " : "", n, each / best_seconds(job, n, cores) * 1e-9);
    }
    printf("}");
}

static void print_arithmetic(const char *name, struct arithmetic a, uint32_t rounds, uint32_t most, const size_t *cores)
{
    if (!a.run) {
        printf(", \"%s_gmacs\": {}, \"%s_by\": null", name, name);
        return;
    }
    struct roof_job job = {.run = a.run, .rounds = rounds};
    char figure[32];
    snprintf(figure, sizeof figure, "%s_gmacs", name);
    print_by_threads(figure, &job, a.macs, most, cores);
    printf(", \"%s_by\": \"%s\"", name, a.by);
}

/* ---- shared memory of our own, gone when we are ---- */

static void die(const char *sentence)
{
    fprintf(stderr, "bench_roofs: %s\n", sentence);
    exit(1);
}

static void name_home(struct segment_home *home, struct why *why)
{
    char name[INSTANCE_NAME_MAX + 1];
    snprintf(name, sizeof name, "roofs-%d", (int)getpid());
    if (segment_home_init(home, name, NULL, why) != OK)
        die(why->text);
}

static void print_read(size_t bytes, uint32_t rounds, uint32_t most, const size_t *cores)
{
    struct segment_home home;
    struct segment memory;
    struct why why = {""};
    name_home(&home, &why);
    if (segment_create(&memory, &home, "weights.0", bytes, -1, &why) != OK)
        die(why.text);
    segment_remove(&home, "weights.0", NULL); /* nothing is left behind, however we end */
    bool huge = segment_populate(&memory);
    memset(memory.base, 1, memory.bytes);
    struct roof_job job = {.run = read_plain, .memory = memory.base, .bytes = memory.bytes, .rounds = rounds};
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        job.run = read_avx512;
    else if (__builtin_cpu_supports("avx2"))
        job.run = read_avx2;
#endif
    print_by_threads("read_gbs", &job, (double)memory.bytes, most, cores);
    printf(", \"huge_pages\": %s", huge ? "true" : "false");
    segment_detach(&memory);
}

/* ---- two processes meet ---- */

static enum err meet_often(struct arena *a, uint32_t rank, uint32_t cores, double *each_us)
{
    static const uint32_t slots[2] = {0, 1};
    struct barrier b;
    struct why why = {""};
    if (barrier_join(&b, a, 0, 1, rank, 2, slots, cores, &why) != OK)
        die(why.text);
    enum err e = OK;
    for (int i = 0; !e && i < MEETINGS / 10; i++) /* both are there and warm */
        e = barrier_meet(&b);
    uint64_t began = now_us();
    for (int i = 0; !e && i < MEETINGS; i++)
        e = barrier_meet(&b);
    *each_us = (double)(now_us() - began) / MEETINGS;
    return e;
}

static double barrier_round(struct arena *a, uint32_t count, const size_t *cores)
{
    double each_us = 0;
    barrier_set_epoch(a, 0, 1);
    fflush(stdout);
    pid_t other = fork();
    must(other >= 0);
    pin(cores[other == 0 && count > 1]);
    enum err e = meet_often(a, other == 0, count, &each_us);
    if (other == 0)
        _exit(e != OK);
    int status;
    must(waitpid(other, &status, 0) == other);
    must(e == OK && status == 0);
    return each_us;
}

static void print_barrier(uint32_t rounds, uint32_t count, const size_t *cores)
{
    struct arena_geometry geometry = {
        .page_classes = 1,
        .nodes = 1,
        .groups = 1,
        .worker_slots = 2,
        .session_slots = 1,
        .context = 16,
        .result_rows = 1,
        .pages_per_node = {1},
        .page_bytes = {64},
        .model_bytes = 8,
        .weights_bytes = 4096,
        .work_bytes = 64,
    };
    double best = 0;
    for (uint32_t r = 0; r < rounds; r++) {
        struct arena arena;
        struct instance instance;
        struct leftovers dropped;
        struct segment_home home;
        struct why why = {""};
        name_home(&home, &why);
        if (instance_hold(&instance, home.name, NULL, &why) != OK ||
            arena_create(&arena, &home, &geometry, 1, "roofs..", &why) != OK)
            die(why.text);
        double each_us = barrier_round(&arena, count, cores);
        best = r == 0 || each_us < best ? each_us : best;
        arena_detach(&arena);
        instance_clear(&instance, &dropped, NULL);
        instance_release(&instance);
    }
    printf(", \"barrier_us\": %.3f", best);
}

/* ---- a message there and back ---- */

static enum err receive_one(struct channel *c, struct channel_peer *from, uint8_t *bytes, size_t *length)
{
    uint64_t deadline = now_us() + (uint64_t)WAIT_MS * 1000;
    enum err e;
    while ((e = channel_receive(c, from, bytes, MESSAGE_BYTES, length)) == ERR_BUSY && now_us() < deadline)
        channel_wait(c, WAIT_MS);
    return e;
}

/* The worker's side: says hello, then answers each message with itself until an empty one comes. */
static int answer_all(const char *directory)
{
    uint8_t bytes[MESSAGE_BYTES] = {0};
    size_t length = 1;
    struct channel *c;
    struct channel_peer from;
    if (channel_connect(&c, directory, (struct channel_peer){1, 1}, NULL) != OK)
        return 1;
    enum err e = channel_send(c, (struct channel_peer){0, 0}, bytes, length);
    while (!e && !(e = receive_one(c, &from, bytes, &length)) && length > 1)
        e = channel_send(c, from, bytes, length);
    channel_close(c);
    return e != OK;
}

static void print_channel(uint32_t rounds, uint32_t count, const size_t *cores)
{
    char directory[CHANNEL_DIRECTORY_MAX + 1], name[32];
    uint8_t bytes[MESSAGE_BYTES] = {0};
    size_t length;
    struct channel *c;
    struct channel_peer worker;
    struct why why = {""};
    snprintf(name, sizeof name, "roofs-%d", (int)getpid());
    if (channel_directory(directory, name, &why) != OK)
        die(why.text);
    fflush(stdout);
    pid_t other = fork(); /* first: ZeroMQ does not outlive a fork */
    must(other >= 0);
    pin(cores[other == 0 && count > 1]);
    if (other == 0)
        _exit(answer_all(directory));
    if (channel_bind(&c, directory, &why) != OK)
        die(why.text);
    if (receive_one(c, &worker, bytes, &length) != OK)
        die("the other process did not say hello within ten seconds");
    double best = 0;
    for (uint32_t r = 0; r < rounds; r++) {
        uint64_t began = now_us();
        for (int i = 0; i < MESSAGES; i++)
            if (channel_send(c, worker, bytes, sizeof bytes) != OK || receive_one(c, &worker, bytes, &length) != OK)
                die("a message of the round trip was lost");
        double each_us = (double)(now_us() - began) / MESSAGES;
        best = r == 0 || each_us < best ? each_us : best;
    }
    channel_send(c, worker, bytes, 1);
    int status;
    must(waitpid(other, &status, 0) == other);
    channel_close(c);
    must(status == 0);
    printf(", \"channel_us\": %.2f", best);
}

/* ---- the command line ---- */

static bool read_number(const char *text, uint64_t least, uint64_t most, uint64_t *out)
{
    char *end;
    errno = 0;
    *out = text ? strtoull(text, &end, 10) : 0;
    return text && !errno && end != text && !*end && *out >= least && *out <= most;
}

int main(int argc, char **argv)
{
    size_t cores[THREADS_MAX];
    uint32_t count = list_cores(cores);
    uint64_t bytes = 96 << 20, threads = count, rounds = 9;
    const char *only = "read,int8,f32,barrier,channel";
    for (int i = 1; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        bool good = strcmp(argv[i], "--bytes") == 0     ? read_number(value, 4096, (uint64_t)1 << 40, &bytes)
                    : strcmp(argv[i], "--threads") == 0 ? read_number(value, 1, count, &threads)
                    : strcmp(argv[i], "--rounds") == 0  ? read_number(value, 1, ROUNDS_MAX, &rounds)
                    : strcmp(argv[i], "--only") == 0    ? (only = value) != NULL
                                                        : false;
        if (!good) {
            fprintf(stderr,
                    "usage: bench_roofs [--bytes 4096..] [--threads 1..%u] [--rounds 1..%d] "
                    "[--only read,int8,f32,barrier,channel]\n",
                    count, (int)ROUNDS_MAX);
            return 2;
        }
    }
    log_set_level(LOG_WARN);
    printf("{\"threads\": %u, \"bytes\": %llu", (uint32_t)threads, (unsigned long long)bytes);
    if (strstr(only, "read"))
        print_read(bytes, (uint32_t)rounds, (uint32_t)threads, cores);
    if (strstr(only, "int8"))
        print_arithmetic("int8", best_int8(), (uint32_t)rounds, (uint32_t)threads, cores);
    if (strstr(only, "f32"))
        print_arithmetic("f32", best_f32(), (uint32_t)rounds, (uint32_t)threads, cores);
    if (strstr(only, "barrier"))
        print_barrier(rounds < 3 ? (uint32_t)rounds : 3, count, cores);
    if (strstr(only, "channel"))
        print_channel((uint32_t)rounds, count, cores);
    printf("}\n");
    return 0;
}
