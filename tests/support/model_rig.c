#include "tests/support/model_rig.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "model/model_file.h"

bool rig_find(const char *file, char path[512])
{
    const char *root = getenv("QUIRE_ROOT"), *fixtures = getenv("QUIRE_FIXTURES");
    if (strncmp(file, "models/", 7) == 0)
        snprintf(path, 512, "%s/%s", root ? root : ".", file);
    else if (fixtures)
        snprintf(path, 512, "%s/%s", fixtures, file);
    else
        snprintf(path, 512, "%s/../shared/fixtures/%s", root ? root : ".", file);
    return access(path, R_OK) == 0;
}

static void *taken(void *memory)
{
    if (!memory)
        fail_msg("no memory for the test");
    return memory;
}

bool rig_open(struct rig *rig, const char *file, uint32_t context)
{
    return rig_open_quantised(rig, file, context, NULL);
}

bool rig_open_quantised(struct rig *rig, const char *file, uint32_t context, const char *quantize)
{
    const struct model_file_options options = {.quantize = quantize};
    char path[512];
    struct why why;
    if (!rig_find(file, path)) {
        print_message("%s is not there\n", path);
        return false;
    }
    if (model_file_open(&rig->g, path, &options, &why) != OK || model_plan(&rig->m, rig->g, path, context, &why) != OK)
        fail_msg("%s", why.text);
    rig->weights = taken(aligned_alloc(4096, rig->m.weights_bytes));
    if (model_build(&rig->m, rig->g, rig->weights, 0, 1, NULL, NULL, &why) != OK)
        fail_msg("%s", why.text);
    return true;
}

void rig_close(struct rig *rig)
{
    gguf_close(rig->g);
    free(rig->weights);
}

/* ---- sequences ---- */

void sequence_spoil(struct sequence *s)
{
    for (uint32_t c = 0; c < MODEL_PAGE_CLASSES; c++)
        for (uint32_t p = 0; p < s->page_count; p++)
            memset(s->pages[c][p], 0xff, s->page_bytes[c]);
}

struct sequence sequence_make(const struct rig *rig, const uint32_t *ids, uint32_t count)
{
    struct sequence s = {.ids = ids, .count = count, .page_count = (count + ATTENTION_PAGE - 1) / ATTENTION_PAGE};
    s.seen = taken(calloc(s.page_count, sizeof *s.seen));
    for (uint32_t c = 0; c < MODEL_PAGE_CLASSES; c++) {
        s.page_bytes[c] = model_page_bytes(&rig->m, c);
        s.pages[c] = taken(calloc(s.page_count, sizeof *s.pages[c]));
        for (uint32_t p = 0; p < s.page_count; p++)
            s.pages[c][p] = taken(aligned_alloc(64, s.page_bytes[c]));
    }
    sequence_spoil(&s);
    return s;
}

static struct batch_run next_run(const struct model *m, const struct sequence *s, uint32_t first_row, uint32_t count)
{
    uint32_t window = model_page_window(m), unseen = s->done >= window ? s->done + 1 - window : 0;
    for (uint32_t p = 0; p < s->page_count; p++)
        s->seen[p] = (p + 1) * ATTENTION_PAGE <= unseen ? NULL : s->pages[1][p];
    return (struct batch_run){
        .first_row = first_row, .count = count, .position = s->done, .pages = {s->pages[0], s->seen}};
}

void sequence_free(struct sequence *s)
{
    for (uint32_t c = 0; c < MODEL_PAGE_CLASSES; c++) {
        for (uint32_t p = 0; p < s->page_count; p++)
            free(s->pages[c][p]);
        free(s->pages[c]);
    }
    free(s->seen);
}

bool sequences_agree(const struct rig *rig, const struct sequence *a, const struct sequence *b)
{
    const struct model *m = &rig->m;
    enum kv_type type = (enum kv_type)m->kv_type;
    uint64_t side = model_page_side_bytes(m);
    if (a->done != b->done)
        return false;
    for (uint32_t p = 0; p < a->done; p++)
        for (uint32_t layer = 0; layer < m->layers; layer++)
            for (uint32_t head = 0; head < m->kv_heads; head++) {
                uint32_t c = model_page_class(m, layer);
                const uint8_t *x = a->pages[c][p / 16], *y = b->pages[c][p / 16];
                x += model_page_k_offset(m, layer, head), y += model_page_k_offset(m, layer, head);
                for (uint32_t d = 0; d < m->head_dim; d++) {
                    float of_x = kv_load_k(type, x, m->head_dim, p % 16, d),
                          of_y = kv_load_k(type, y, m->head_dim, p % 16, d);
                    if (memcmp(&of_x, &of_y, sizeof of_x) != 0)
                        return false;
                    of_x = kv_load_v(type, x + side, m->head_dim, p % 16, d);
                    of_y = kv_load_v(type, y + side, m->head_dim, p % 16, d);
                    if (memcmp(&of_x, &of_y, sizeof of_x) != 0)
                        return false;
                }
            }
    return true;
}

/* ---- ranks as threads ---- */

struct engine engine_open(const struct rig *rig, const struct kernels *k, uint32_t ranks)
{
    struct engine e = {.rig = rig, .ranks = ranks};
    struct why why;
    for (uint32_t rank = 0; rank < ranks; rank++)
        if (forward_open(&e.f[rank], &rig->m, rig->weights, k, RIG_CAPACITY, RIG_CAPACITY, &why) != OK)
            fail_msg("%s", why.text);
    uint64_t bytes = shared_buffers_place(&e.shared, &rig->m, RIG_CAPACITY, RIG_CAPACITY, NULL);
    e.shared_memory = taken(aligned_alloc(64, bytes));
    memset(e.shared_memory, 0xff, bytes);
    shared_buffers_place(&e.shared, &rig->m, RIG_CAPACITY, RIG_CAPACITY, e.shared_memory);
    memset(e.shared.handed, 0, FORWARD_MAX_RANKS * sizeof *e.shared.handed);
    return e;
}

void engine_close(struct engine *e)
{
    for (uint32_t rank = 0; rank < e->ranks; rank++)
        forward_close(e->f[rank]);
    free(e->shared_memory);
}

struct rank_thread {
    pthread_t thread;
    struct forward *f;
    const struct batch *batch;
    uint32_t rows;
    enum err err;
};

static enum err meet_at_barrier(void *arg)
{
    pthread_barrier_wait(arg);
    return OK;
}

static void *take_part(void *arg)
{
    struct rank_thread *t = arg;
    t->err = forward_run(t->f, t->batch);
    uint32_t rows[RIG_CAPACITY], first, last;
    for (uint32_t i = 0; i < t->rows; i++)
        rows[i] = i;
    if (t->err == OK)
        for (forward_logits_begin(t->f, rows, t->rows); forward_logits_next(t->f, &first, &last);)
            ;
    return NULL;
}

static void run_batch(struct engine *e, const struct batch *b)
{
    pthread_barrier_t barrier;
    struct rank_thread threads[8];
    pthread_barrier_init(&barrier, NULL, e->ranks);
    e->epoch++;
    for (uint32_t rank = 0; rank < e->ranks; rank++) {
        forward_join(e->f[rank], rank, e->ranks, e->epoch, &e->shared, e->ranks > 1 ? meet_at_barrier : NULL, &barrier);
        threads[rank] = (struct rank_thread){.f = e->f[rank], .batch = b, .rows = b->tokens};
        if (rank > 0 && pthread_create(&threads[rank].thread, NULL, take_part, &threads[rank]) != 0)
            fail_msg("no thread for the test");
    }
    take_part(&threads[0]);
    for (uint32_t rank = 0; rank < e->ranks; rank++) {
        if (rank > 0)
            pthread_join(threads[rank].thread, NULL);
        assert_int_equal(threads[rank].err, OK);
    }
    pthread_barrier_destroy(&barrier);
}

void engine_step(struct engine *e, struct sequence *sequences, const uint32_t *take, uint32_t count,
                 float *const *logits)
{
    const struct model *m = &e->rig->m;
    struct batch_run runs[RIG_CAPACITY];
    uint32_t ids[RIG_CAPACITY];
    struct batch b = {.runs = runs, .token_ids = ids};
    for (uint32_t i = 0; i < count; i++) {
        struct sequence *s = &sequences[i];
        if (take[i] == 0)
            continue;
        assert_true(b.tokens + take[i] <= RIG_CAPACITY && s->done + take[i] <= s->count);
        runs[b.run_count++] = next_run(m, s, b.tokens, take[i]);
        memcpy(ids + b.tokens, s->ids + s->done, take[i] * sizeof *ids);
        b.tokens += take[i];
    }
    struct why why;
    if (batch_check(&b, m, RIG_CAPACITY, &why) != OK)
        fail_msg("%s", why.text);
    run_batch(e, &b);

    size_t stride = (m->vocab + 15) / 16 * 16, row = 0;
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t t = 0; t < take[i]; t++, row++)
            if (logits && logits[i])
                memcpy(logits[i] + (size_t)t * m->vocab, e->shared.logits + row * stride, m->vocab * sizeof(float));
        sequences[i].done += take[i];
    }
}

void engine_feed(struct engine *e, struct sequence *s, uint32_t chunk, float *logits)
{
    while (s->done < s->count) {
        uint32_t take = s->count - s->done < chunk ? s->count - s->done : chunk;
        engine_step(e, s, &take, 1, &logits);
        logits += (size_t)take * e->rig->m.vocab;
    }
}
