/*
 * bench_kernels: how fast matrix products are on one core, next to what the core could do at most.
 *
 *   bench_kernels [--kernels NAME] [--type NAME] [--shape ROWSxCOLS] [--tokens N] [--rounds N] [--warm]
 *
 * Prints one line for each combination: GMAC/s, its share of the measured vpdpbusd rate (registers only), bytes of
 * weights read per second and their share of the measured read rate. The matrix is copied until the copies exceed the
 * caches and the copies are used in turn, as a decode step would; --warm uses one copy. Best of several rounds.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/must.h"
#include "bench/bench_memory.h"
#include "model/kernels/kernels.h"

enum { COPIES_BYTES = 128 << 20, ROUND_US = 10000 };

struct shape {
    uint32_t rows, cols;
};

struct roofs {
    double gmacs; /* 0: this machine has no VNNI */
    double read_gbs;
};

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); /* other programs cost us caches only */
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#if defined(__x86_64__)
/* 12 chains hide the latency of 4. */
__attribute__((target("avx512f,avx512vnni"))) static void multiply_registers(uint64_t rounds)
{
#define DP(i) "vpdpbusd %%zmm31, %%zmm30, %%zmm" #i "\n\t"
    __asm__ volatile(
        "1:\n\t" DP(0) DP(1) DP(2) DP(3) DP(4) DP(5) DP(6) DP(7) DP(8) DP(9) DP(10) DP(11) "dec %0\n\tjnz 1b"
        : "+r"(rounds)
        :
        : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "cc");
#undef DP
}
#endif

static double multiply_roof(void)
{
    double best = 0;
#if defined(__x86_64__)
    const uint64_t rounds = 1000000;
    for (int i = 0; i < 7 && __builtin_cpu_supports("avx512vnni"); i++) {
        double start = seconds();
        multiply_registers(rounds);
        double rate = (double)rounds * 12 * 64 / (seconds() - start) * 1e-9;
        best = rate > best ? rate : best;
    }
#endif
    return best;
}

static double read_roof(void)
{
    size_t words = COPIES_BYTES / sizeof(uint64_t);
    uint64_t *memory = bench_allocate(COPIES_BYTES, 0);
    double best = 0;
    for (int i = 0; i < 7; i++) {
        double start = seconds();
        uint64_t sum[8] = {0};
        for (size_t w = 0; w < words; w += 8)
            for (size_t j = 0; j < 8; j++)
                sum[j] ^= memory[w + j];
        uint64_t all = sum[0] ^ sum[1] ^ sum[2] ^ sum[3] ^ sum[4] ^ sum[5] ^ sum[6] ^ sum[7];
        __asm__ volatile("" ::"r"(all));
        double rate = COPIES_BYTES / (seconds() - start) * 1e-9;
        best = rate > best ? rate : best;
    }
    free(memory);
    return best;
}

/* Random blocks whose scales are ordinary numbers: 0x2c in the upper byte of each half is about 0.06. */
static uint8_t *random_weights(enum tensor_type type, struct shape s)
{
    const struct tensor_type_traits *traits = tensor_type_traits(type);
    size_t bytes = (size_t)s.rows * s.cols / traits->block_elements * traits->block_bytes;
    uint8_t *rows = bench_allocate(bytes, 0);
    uint64_t state = 42, size;
    for (size_t i = 0; i < bytes; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        rows[i] = (uint8_t)(state >> 56) & 0x3f;
    }
    must(tiles_bytes(type, s.rows, s.cols, &size));
    uint8_t *tiles = bench_allocate(size, 0);
    tiles_build(type, tiles, rows, s.rows, s.cols, 0, (s.rows + TILE_ROWS - 1) / TILE_ROWS, NULL);
    free(rows);
    return tiles;
}

struct measured {
    double product_s; /* of one product */
    double quantize_s;
    uint64_t bytes;
};

static struct measured measure(const struct kernels *k, enum tensor_type type, struct shape s, uint32_t tokens,
                               int rounds, bool warm)
{
    struct measured out = {1e9, 1e9, 0};
    must(tiles_bytes(type, s.rows, s.cols, &out.bytes));
    uint64_t copies = warm ? 1 : COPIES_BYTES / out.bytes + 1;
    uint8_t *one = random_weights(type, s), *all = bench_allocate(out.bytes * copies, 0);
    for (uint64_t c = 0; c < copies; c++)
        memcpy(all + c * out.bytes, one, out.bytes);
    float *x = bench_allocate((size_t)tokens * s.cols * sizeof *x, 0),
          *y = bench_allocate((size_t)tokens * s.rows * sizeof *y, 0);
    for (size_t i = 0; i < (size_t)tokens * s.cols; i++)
        x[i] = (float)((int)(i * 7919 % 2001) - 1000) / 1000.0f;
    void *memory = bench_allocate(activations_bytes(tokens, s.cols), 0),
         *scratch = bench_allocate(product_scratch_bytes(s.cols), 0);
    struct activations a;
    activations_place(&a, memory, tokens, s.cols, x, s.cols);
    uint64_t next = 0;
    for (int r = 0; r < rounds; r++) {
        double start = seconds(), now = start;
        k->quantize(&a, 0, s.cols / TILE_K);
        double quantize_s = seconds() - start;
        uint64_t done = 0;
        for (start = seconds(); done == 0 || now - start < ROUND_US * 1e-6; done++, now = seconds()) {
            struct tile_matrix w = {type, s.rows, s.cols, all + next++ % copies * out.bytes};
            k->product(&w, 0, (s.rows + TILE_ROWS - 1) / TILE_ROWS, &a, y, s.rows, PRODUCT_STORE, scratch);
        }
        double product_s = (now - start) / (double)done;
        out.product_s = product_s < out.product_s ? product_s : out.product_s;
        out.quantize_s = quantize_s < out.quantize_s ? quantize_s : out.quantize_s;
    }
    free(one);
    free(all);
    free(x);
    free(y);
    free(memory);
    free(scratch);
    return out;
}

static void report(const struct kernels *k, enum tensor_type type, struct shape s, uint32_t tokens, int rounds,
                   bool warm, const struct roofs *roofs)
{
    struct measured m = measure(k, type, s, tokens, rounds, warm);
    double gmacs = (double)s.rows * s.cols * tokens / m.product_s * 1e-9, gbs = (double)m.bytes / m.product_s * 1e-9;
    printf("%-9s %-6s %5ux%-5u %4u  %8.1f GMAC/s %5.1f %%   %6.1f GB/s %5.1f %%   quantize %7.2f us\n", k->name,
           tensor_type_traits(type)->name, s.rows, s.cols, tokens, gmacs,
           roofs->gmacs > 0 ? 100 * gmacs / roofs->gmacs : 0.0, gbs, 100 * gbs / roofs->read_gbs, m.quantize_s * 1e6);
    fflush(stdout);
}

/*
 * Attention of one kv head with 3 query heads of 64 dimensions, the last `queries` of `positions`. A MAC is one of QK
 * or of PV.
 */
static void report_attention(const struct kernels *k, uint32_t queries, uint32_t positions, int rounds)
{
    enum { HEADS = 3, DIM = 64, PAGE_BYTES = 2 * DIM * ATTENTION_PAGE * 2 };
    uint32_t pages = (positions + ATTENTION_PAGE - 1) / ATTENTION_PAGE;
    uint8_t *memory = bench_allocate((size_t)pages * PAGE_BYTES, 0);
    const uint8_t **table = bench_allocate(pages * sizeof *table, 0);
    float *q = bench_allocate(queries * HEADS * DIM * sizeof *q, 0),
          *out = bench_allocate(queries * HEADS * DIM * sizeof *out, 0);
    for (size_t i = 0; i < (size_t)pages * PAGE_BYTES; i += 2)
        memory[i + 1] = 0x30 | (uint8_t)(i * 7 % 11);
    for (uint32_t p = 0; p < pages; p++)
        table[p] = memory + (size_t)p * PAGE_BYTES;
    struct attention a = {.q = q,
                          .q_stride = HEADS * DIM,
                          .out = out,
                          .out_stride = HEADS * DIM,
                          .queries = queries,
                          .first = positions - queries,
                          .heads = HEADS,
                          .head_dim = DIM,
                          .scale = 0.125f,
                          .pages = table,
                          .v_offset = PAGE_BYTES / 2,
                          .scratch = bench_allocate(attention_scratch_bytes(DIM), 0)};
    double best = 1e9;
    for (int r = 0; r < rounds; r++) {
        uint64_t done = 0;
        double start = seconds(), now = start;
        for (; done == 0 || now - start < ROUND_US * 1e-6; done++, now = seconds())
            k->attend(&a);
        best = (now - start) / (double)done < best ? (now - start) / (double)done : best;
    }
    double macs = ((double)positions - (double)(queries - 1) / 2) * queries * HEADS * DIM * 2;
    printf("%-9s attend %4u queries, %5u positions  %8.1f GMAC/s   %8.2f us\n", k->name, queries, positions,
           macs / best * 1e-9, best * 1e6);
    free(memory);
    free(table);
    free(q);
    free(out);
    free(a.scratch);
}

static int usage(const char *program)
{
    fprintf(stderr, "usage: %s [--kernels NAME] [--type NAME] [--shape ROWSxCOLS] [--tokens N] [--rounds N] [--warm]\n",
            program);
    return 2;
}

int main(int argc, char **argv)
{
    static const struct shape shapes[] = {{576, 576}, {1536, 576}, {576, 1536}, {49152, 576}, {2048, 8192}};
    static const enum tensor_type types[] = {TENSOR_Q4_1, TENSOR_Q4_0, TENSOR_Q8_0,
                                             TENSOR_Q4_K, TENSOR_Q6_K, TENSOR_F16};
    static const uint32_t batches[] = {1, 2, 4, 8, 16, 32, 256};
    const char *set = NULL, *type = NULL;
    struct shape only = {0, 0};
    unsigned long tokens = 0;
    int rounds = 9;
    bool warm = false;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--warm") == 0) {
            warm = true;
            continue;
        }
        if (!value)
            return usage(argv[0]);
        if (strcmp(argv[i], "--kernels") == 0)
            set = value;
        else if (strcmp(argv[i], "--type") == 0)
            type = value;
        else if (strcmp(argv[i], "--tokens") == 0)
            tokens = strtoul(value, NULL, 10);
        else if (strcmp(argv[i], "--rounds") == 0)
            rounds = atoi(value);
        else if (strcmp(argv[i], "--shape") != 0 || sscanf(value, "%ux%u", &only.rows, &only.cols) != 2)
            return usage(argv[0]);
        i++;
    }
    const struct kernels *chosen = kernels_choose(set);
    if (!chosen) {
        fprintf(stderr, "this machine cannot run kernels '%s'\n", set);
        return 1;
    }
    struct roofs roofs = {multiply_roof(), read_roof()};
    printf("one core: vpdpbusd on registers %.1f GMAC/s, reading memory %.1f GB/s\n", roofs.gmacs, roofs.read_gbs);
    for (enum tensor_type t = 0; t < 40; t++) {
        bool listed = false;
        for (size_t i = 0; i < sizeof types / sizeof *types; i++)
            listed = listed || types[i] == t;
        const struct tensor_type_traits *traits = tensor_type_traits(t);
        if (!traits || !tiles_know(t) || (type ? strcmp(type, traits->name) != 0 : !listed))
            continue;
        for (size_t s = 0; s < (only.rows ? 1 : sizeof shapes / sizeof *shapes); s++) {
            struct shape shape = only.rows ? only : shapes[s];
            if (shape.cols % traits->block_elements)
                continue;
            for (size_t b = 0; b < (tokens ? 1 : sizeof batches / sizeof *batches); b++)
                report(chosen, t, shape, tokens ? (uint32_t)tokens : batches[b], rounds, warm, &roofs);
        }
    }
    for (uint32_t positions = 64; !type && !tokens && positions <= 4096; positions *= 8) {
        report_attention(chosen, 1, positions, rounds);
        report_attention(chosen, 64, positions, rounds);
    }
    return 0;
}
