/*
 * sampler: see sampler.h. What stays true: a block of 256 vocabulary rows is always measured whole and in the same way,
 * and everything after that runs over blocks in order, so no split of the rows over ranks can show in a result.
 */
#include "model/sampler.h"

#include <math.h>
#include <stdlib.h>

/* A logit and where it stands: a vocabulary id, or a block when it is that block's maximum. */
struct candidate {
    float logit;
    uint32_t id;
};

struct sampler {
    uint32_t vocab;
    uint32_t blocks;
    uint32_t *seen;          /* (vocab); all zero between calls */
    struct candidate *found; /* (vocab) */
    struct candidate *peaks; /* (blocks) */
};

static const float lowest = -INFINITY;
static const float least_logprob = -9999.0f; /* what the field writes for "next to impossible"; JSON has no -inf */

static const uint32_t penalised =
    1u << 31; /* bit of seen[]: this id had its penalty; below it: how often it was generated */

enum err sampler_open(struct sampler **out, uint32_t vocab, struct why *why)
{
    struct sampler *s = calloc(1, sizeof *s);
    if (!s)
        goto no_memory;
    s->vocab = vocab;
    s->blocks = vocab / SAMPLE_BLOCK + (vocab % SAMPLE_BLOCK != 0);
    s->seen = calloc(vocab, sizeof *s->seen);
    s->found = calloc(vocab, sizeof *s->found);
    s->peaks = calloc(s->blocks, sizeof *s->peaks);
    if (!s->seen || !s->found || !s->peaks)
        goto no_memory;
    *out = s;
    return OK;

no_memory:
    sampler_close(s);
    return because(why, ERR_NOMEM, "could not reserve memory to sample from %u tokens: the system has none left",
                   vocab);
}

void sampler_close(struct sampler *s)
{
    if (!s)
        return;
    free(s->peaks);
    free(s->found);
    free(s->seen);
    free(s);
}

/* ---- stage 1: the owner of some rows ---- */

bool sampling_changes_logits(const struct sampling *p, const uint64_t *mask)
{
    return mask || p->bias_count > 0 || p->repetition_penalty != 1 || p->presence_penalty != 0 ||
           p->frequency_penalty != 0 || (p->min_tokens > 0 && p->stop_id_count > 0);
}

static uint32_t history_length(const struct sample_history *h)
{
    return h->count + (h->has_handed ? 1 : 0);
}

static uint32_t history_at(const struct sample_history *h, uint32_t index)
{
    return index < h->count ? h->tokens[index] : h->handed;
}

static uint32_t generated_tokens(const struct sampling *p, const struct sample_history *h)
{
    uint32_t length = history_length(h);
    return length > p->prompt_tokens ? length - p->prompt_tokens : 0;
}

/* Ids from shared memory may say anything: only those in the caller's own range are ever used as an index. */
static bool within(uint32_t id, uint32_t first, uint32_t last)
{
    return id >= first && id < last;
}

static void add_bias(const struct sampling *p, float *row, uint32_t first, uint32_t last)
{
    uint32_t count = p->bias_count < SAMPLING_MAX_BIAS ? p->bias_count : SAMPLING_MAX_BIAS;
    for (uint32_t i = 0; i < count; i++)
        if (within(p->bias[i].token, first, last))
            row[p->bias[i].token] += p->bias[i].bias;
}

static float penalty_of(const struct sampling *p, float logit, uint32_t times_generated)
{
    float p_repeat = p->repetition_penalty;
    logit = logit > 0 ? logit / p_repeat : logit * p_repeat;
    if (times_generated > 0)
        logit -= p->presence_penalty + p->frequency_penalty * (float)times_generated;
    return logit;
}

/* Each id once, however often it occurs. */
static void add_penalties(struct sampler *s, const struct sampling *p, const struct sample_history *h, float *row,
                          uint32_t first, uint32_t last)
{
    if (p->repetition_penalty == 1 && p->presence_penalty == 0 && p->frequency_penalty == 0)
        return;
    uint32_t length = history_length(h);
    for (uint32_t i = p->prompt_tokens; i < length; i++)
        if (within(history_at(h, i), first, last))
            s->seen[history_at(h, i)]++;
    for (uint32_t i = 0; i < length; i++) {
        uint32_t id = history_at(h, i);
        if (!within(id, first, last) || (s->seen[id] & penalised))
            continue;
        row[id] = penalty_of(p, row[id], s->seen[id]);
        s->seen[id] |= penalised;
    }
    for (uint32_t i = 0; i < length; i++)
        if (within(history_at(h, i), first, last))
            s->seen[history_at(h, i)] = 0;
}

static void ban_stop_ids(const struct sampling *p, const struct sample_history *h, float *row, uint32_t first,
                         uint32_t last)
{
    if (generated_tokens(p, h) >= p->min_tokens)
        return;
    uint32_t count = p->stop_id_count < SAMPLING_MAX_STOP_IDS ? p->stop_id_count : SAMPLING_MAX_STOP_IDS;
    for (uint32_t i = 0; i < count; i++)
        if (within(p->stop_ids[i], first, last))
            row[p->stop_ids[i]] = lowest;
}

static void ban_masked(const uint64_t *mask, float *row, uint32_t first, uint32_t last)
{
    for (uint32_t id = first; id < last; id++)
        if (!(mask[id / 64] >> id % 64 & 1))
            row[id] = lowest;
}

void sampler_prepare(struct sampler *s, const struct kernels *k, const struct sampling *p,
                     const struct sample_history *history, const uint64_t *mask, const float *raw, float *processed,
                     uint32_t first, uint32_t last, struct sample_partial *partials)
{
    if (p && sampling_changes_logits(p, mask)) {
        for (uint32_t id = first; id < last; id++)
            processed[id] = raw[id];
        add_bias(p, processed, first, last);
        add_penalties(s, p, history, processed, first, last);
        ban_stop_ids(p, history, processed, first, last);
        if (mask)
            ban_masked(mask, processed, first, last);
    }
    bool scores = !p || p->logprobs > 0;
    for (uint32_t at = first; at < last; at += SAMPLE_BLOCK) {
        uint32_t end = last - at < SAMPLE_BLOCK ? last : at + SAMPLE_BLOCK;
        struct sample_partial *partial = &partials[at / SAMPLE_BLOCK];
        *partial = (struct sample_partial){.raw_max = lowest, .max = lowest, .argmax = at};
        uint32_t raw_argmax;
        if (scores)
            k->measure(raw + at, end - at, 1, &partial->raw_max, &raw_argmax, &partial->raw_sum);
        if (!p)
            continue;
        k->measure(processed + at, end - at, p->temperature, &partial->max, &partial->argmax, &partial->sum);
        partial->argmax += at;
    }
}

/* ---- candidates: the best of all rows without sorting all rows ---- */

static bool before(struct candidate a, struct candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

/* Restores the heap (best on top) below `at`. */
static void sift_down(struct candidate *heap, uint32_t count, uint32_t at)
{
    for (;;) {
        uint32_t best = at, left = 2 * at + 1, right = left + 1;
        if (left < count && before(heap[left], heap[best]))
            best = left;
        if (right < count && before(heap[right], heap[best]))
            best = right;
        if (best == at)
            return;
        struct candidate swapped = heap[at];
        heap[at] = heap[best];
        heap[best] = swapped;
        at = best;
    }
}

static void heap_make(struct candidate *heap, uint32_t count)
{
    for (uint32_t i = count / 2; i-- > 0;)
        sift_down(heap, count, i);
}

/* Takes the best; it then stands at heap[*count], right behind what is left. */
static struct candidate heap_take(struct candidate *heap, uint32_t *count)
{
    struct candidate best = heap[0];
    heap[0] = heap[--*count];
    heap[*count] = best;
    sift_down(heap, *count, 0);
    return best;
}

/* Which of a partial's two maxima: of the raw row or of the processed one. */
enum which { RAW, PROCESSED };

static float peak_of(const struct sample_partial *partial, enum which which)
{
    return which == RAW ? partial->raw_max : partial->max;
}

/* A bound that at least `wanted` rows reach: the wanted-th best block maximum. -inf when there are not so many blocks. */
static float bound_for(struct sampler *s, const struct sample_partial *partials, enum which which, uint32_t wanted)
{
    if (wanted > s->blocks)
        return lowest;
    for (uint32_t b = 0; b < s->blocks; b++)
        s->peaks[b] = (struct candidate){peak_of(&partials[b], which), b};
    uint32_t left = s->blocks;
    heap_make(s->peaks, left);
    float bound = lowest;
    for (uint32_t i = 0; i < wanted; i++)
        bound = heap_take(s->peaks, &left).logit;
    return bound;
}

/* All rows that reach the bound, as a heap in s->found; the count of them. Rows at -inf never do. */
static uint32_t gather(struct sampler *s, const float *row, const struct sample_partial *partials, enum which which,
                       float bound)
{
    uint32_t count = 0;
    for (uint32_t b = 0; b < s->blocks; b++) {
        if (peak_of(&partials[b], which) < bound)
            continue;
        uint32_t first = b * SAMPLE_BLOCK;
        uint32_t last = s->vocab - first < SAMPLE_BLOCK ? s->vocab : first + SAMPLE_BLOCK;
        for (uint32_t id = first; id < last; id++) {
            float logit = tamed_logit(row[id]);
            if (logit >= bound && logit > lowest)
                s->found[count++] = (struct candidate){logit, id};
        }
    }
    heap_make(s->found, count);
    return count;
}

/* ---- stage 2: the draw ---- */

/* exp((logit - max) / temperature), as every weight here is made. */
static double weight_of(float logit, float max, float temperature)
{
    return logit == lowest ? 0 : (double)kernel_expf((logit - max) / temperature);
}

static float overall_max(const struct sampler *s, const struct sample_partial *partials, enum which which)
{
    float max = lowest;
    for (uint32_t b = 0; b < s->blocks; b++)
        if (peak_of(&partials[b], which) > max)
            max = peak_of(&partials[b], which);
    return max;
}

static double total_weight(const struct sampler *s, const struct sample_partial *partials, float max, float temperature)
{
    double total = 0;
    for (uint32_t b = 0; b < s->blocks; b++)
        total += partials[b].sum * weight_of(partials[b].max, max, temperature);
    return total;
}

/* No row has a number: the lowest that is not banned (a ban is -inf, a sick logit is not), or 0. */
static uint32_t lowest_allowed(const struct sampler *s, const float *processed)
{
    for (uint32_t id = 0; id < s->vocab; id++)
        if (processed[id] != lowest)
            return id;
    return 0;
}

static uint32_t pick_largest(const struct sampler *s, const struct sample_partial *partials, float max)
{
    for (uint32_t b = 0; b < s->blocks; b++)
        if (partials[b].max == max)
            return partials[b].argmax;
    return 0;
}

/* The row where the running sum of the block passes `target`; the last one with any weight when rounding hides it. */
static uint32_t pick_in_block(const struct sampler *s, const float *row, uint32_t block, float max, float temperature,
                              double target)
{
    uint32_t first = block * SAMPLE_BLOCK;
    uint32_t last = s->vocab - first < SAMPLE_BLOCK ? s->vocab : first + SAMPLE_BLOCK;
    uint32_t picked = first;
    double sum = 0;
    for (uint32_t id = first; id < last && sum <= target; id++) {
        double weight = weight_of(tamed_logit(row[id]), max, temperature);
        sum += weight;
        if (weight > 0)
            picked = id;
    }
    return picked;
}

static uint32_t pick_unrestricted(const struct sampler *s, const struct sampling *p, const float *row,
                                  const struct sample_partial *partials, float max, double uniform)
{
    double target = uniform * total_weight(s, partials, max, p->temperature);
    double sum = 0, before_block = 0, scale = 1;
    uint32_t block = 0;
    for (uint32_t b = 0; b < s->blocks && sum <= target; b++) {
        double factor = weight_of(partials[b].max, max, p->temperature);
        double weight = partials[b].sum * factor;
        if (!(weight > 0))
            continue;
        block = b;
        scale = factor;
        before_block = sum;
        sum += weight;
    }
    return pick_in_block(s, row, block, partials[block].max, p->temperature, (target - before_block) / scale);
}

/*
 * What top_k, top_p and min_p leave is always a run of best candidates. Takes them off the heap of `count`; they then stand in
 * s->found[count - 1] downwards, best first. False when the heap ran empty before a limit was met: it held too few.
 */
static bool keep_best(struct sampler *s, const struct sampling *p, float max, uint32_t count, double total,
                      uint32_t *kept, double *mass)
{
    uint32_t most = p->top_k > 0 && p->top_k < count ? p->top_k : count;
    bool limited = p->top_k > 0 && p->top_k <= count;
    uint32_t left = count;
    if (p->top_k > 0) { /* top_p is a share of what top_k leaves, so that is summed first */
        total = 0;
        for (uint32_t i = 0; i < most; i++)
            total += weight_of(heap_take(s->found, &left).logit, max, p->temperature);
    }
    *kept = 0;
    *mass = 0;
    while (*kept < most) {
        uint32_t next = count - 1 - *kept;
        if (p->top_k == 0)
            heap_take(s->found, &left);
        double weight = weight_of(s->found[next].logit, max, p->temperature);
        if (*kept > 0 && weight < (double)p->min_p)
            return true;
        *mass += weight;
        (*kept)++;
        if (p->top_p < 1 && *mass >= (double)p->top_p * total)
            return true;
    }
    return limited;
}

static uint32_t pick_restricted(struct sampler *s, const struct sampling *p, const float *row,
                                const struct sample_partial *partials, float max, double uniform)
{
    double total = total_weight(s, partials, max, p->temperature);
    const uint32_t wanted[] = {p->top_k > 0 ? p->top_k : 64, 1024, UINT32_MAX};
    uint32_t count = 0, kept = 0;
    double mass = 0;
    for (uint32_t try = 0; try < 3; try++) {
        float bound = bound_for(s, partials, PROCESSED, wanted[try]);
        count = gather(s, row, partials, PROCESSED, bound);
        if (keep_best(s, p, max, count, total, &kept, &mass) || bound == lowest)
            break;
    }
    if (count == 0) /* the partials promised rows that are not there */
        return lowest_allowed(s, row);
    double target = uniform * mass, sum = 0;
    uint32_t picked = s->found[count - 1].id;
    for (uint32_t i = 0; i < kept && sum <= target; i++) {
        struct candidate c = s->found[count - 1 - i];
        double weight = weight_of(c.logit, max, p->temperature);
        sum += weight;
        if (weight > 0)
            picked = c.id;
    }
    return picked;
}

/* ---- log-probabilities ---- */

struct raw_total {
    float max;
    double log_sum;
};

static struct raw_total raw_total_of(const struct sampler *s, const struct sample_partial *partials)
{
    float max = overall_max(s, partials, RAW);
    double sum = 0;
    for (uint32_t b = 0; b < s->blocks; b++)
        sum += partials[b].raw_sum * weight_of(partials[b].raw_max, max, 1);
    return (struct raw_total){max, sum > 0 ? log(sum) : 0};
}

static float logprob_of(struct raw_total t, float raw)
{
    double logprob = (double)tamed_logit(raw) - (double)t.max - t.log_sum;
    return logprob > (double)least_logprob ? (float)logprob : least_logprob; /* also when it is NaN */
}

void sampler_score(struct sampler *s, uint32_t token, uint32_t top_count, const float *raw,
                   const struct sample_partial *partials, struct sampled *out)
{
    struct raw_total total = raw_total_of(s, partials);
    out->token = token;
    out->logprob = token < s->vocab ? logprob_of(total, raw[token]) : least_logprob;
    out->top_count = 0;
    out->reserved = 0;
    if (top_count > SAMPLING_MAX_TOP_LOGPROBS)
        top_count = SAMPLING_MAX_TOP_LOGPROBS;
    if (top_count == 0)
        return;
    uint32_t left = gather(s, raw, partials, RAW, bound_for(s, partials, RAW, top_count));
    while (out->top_count < top_count && left > 0) {
        struct candidate c = heap_take(s->found, &left);
        out->top[out->top_count++] = (struct token_logprob){c.id, logprob_of(total, c.logit)};
    }
}

void sampler_draw(struct sampler *s, const struct sampling *p, uint32_t position, const float *raw,
                  const float *processed, const struct sample_partial *partials, struct sampled *out)
{
    float max = overall_max(s, partials, PROCESSED);
    uint32_t token;
    if (max == lowest) {
        token = lowest_allowed(s, processed);
    } else if (!(p->temperature > 0)) {
        token = pick_largest(s, partials, max);
    } else {
        double uniform = sampler_uniform(p->seed, p->choice, position, 0);
        bool restricted = p->top_k > 0 || p->top_p < 1 || p->min_p > 0;
        token = restricted ? pick_restricted(s, p, processed, partials, max, uniform)
                           : pick_unrestricted(s, p, processed, partials, max, uniform);
    }
    if (p->logprobs > 0)
        sampler_score(s, token, p->logprobs - 1, raw, partials, out);
    else
        *out = (struct sampled){.token = token};
}

/* ---- the generator ---- */

void sampler_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    const uint32_t multiplier[2] = {0xD2511F53, 0xCD9E8D57};
    const uint32_t weyl[2] = {0x9E3779B9, 0xBB67AE85};
    uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]};
    uint32_t k[2] = {key[0], key[1]};
    for (int round = 0; round < 10; round++) {
        uint64_t low = (uint64_t)multiplier[0] * c[0];
        uint64_t high = (uint64_t)multiplier[1] * c[2];
        uint32_t next[4] = {(uint32_t)(high >> 32) ^ c[1] ^ k[0], (uint32_t)high, (uint32_t)(low >> 32) ^ c[3] ^ k[1],
                            (uint32_t)low};
        for (int i = 0; i < 4; i++)
            c[i] = next[i];
        k[0] += weyl[0];
        k[1] += weyl[1];
    }
    for (int i = 0; i < 4; i++)
        out[i] = c[i];
}

double sampler_uniform(uint64_t seed, uint32_t choice, uint32_t position, uint32_t draw)
{
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    const uint32_t counter[4] = {choice, position, draw, 0};
    uint32_t random[4];
    sampler_philox(counter, key, random);
    uint64_t bits = (uint64_t)random[0] << 32 | random[1];
    return (double)(bits >> 11) * 0x1p-53;
}
