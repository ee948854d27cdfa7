/*
 * Who ends workers. A suspect death counts against all sequences that were in the plans that it ended. After two of them a sequence runs
 * alone, one plan at a time, until it is past the positions at which the last one died; then it is on probation. One that ends a worker
 * while it runs alone is convicted and ends with an error.
 *
 * A SIGKILL from outside counts for nothing, except that a sequence that was alone in its plan at LONE_DEATHS_MOST deaths in a row, of
 * any kind, is ended too: it may be what the kernel's out-of-memory killer answers.
 */
#include "base/log.h"
#include "coordinator/scheduler_internal.h"

enum {
    CHUNK_HALVINGS_MOST = 5, /* of STEP_BUDGET: one page is left */
    LONE_DEATHS_MOST = 8,
    PROBATION_ROWS = 64, /* answered without a suspect death: forgotten */
};

uint32_t scheduler_chunk_most(const struct sequence *q)
{
    return (uint32_t)STEP_BUDGET >> (q->deaths < CHUNK_HALVINGS_MOST ? q->deaths : CHUNK_HALVINGS_MOST);
}

void scheduler_exonerate(struct sequence *q)
{
    q->deaths = q->lone_deaths = 0;
    if (scheduler_runs_alone(q) && q->n_kv >= q->suspect_until)
        q->suspect_deaths = 1;
    if (q->suspect_deaths == 1 && ++q->good_rows >= PROBATION_ROWS)
        q->suspect_deaths = 0;
}

static void accuse(struct sequence *q)
{
    if (q->accused)
        return;
    q->accused = true;
    q->deaths++;
    q->suspect_until = q->planned_kv;
}

void scheduler_accuse(struct scheduler *s, struct group *group)
{
    struct sequence *one = NULL;
    bool alone = true;
    scheduler_acquit(s, group);
    for (uint32_t i = 0; i < group->flight_count; i++)
        for (uint32_t r = 0; r < group->flights[i]->row_count; r++) {
            struct sequence *q = group->flights[i]->owners[r];
            if (!q)
                continue;
            accuse(q);
            alone &= !one || one == q;
            one = q;
        }
    if (!one || !alone)
        return;
    one->accused_alone = true;
    one->lone_deaths++;
}

static void acquit(const struct sequence_list *list, uint32_t group)
{
    for (struct sequence *q = list->first; q; q = q->next)
        if (q->group == group)
            q->accused = q->accused_alone = false;
}

void scheduler_acquit(struct scheduler *s, struct group *group)
{
    acquit(&s->running, (uint32_t)(group - s->groups));
    acquit(&s->waiting, (uint32_t)(group - s->groups));
}

void scheduler_end_hopeless(struct scheduler *s, struct group *group)
{
    uint32_t g = (uint32_t)(group - s->groups);
    for (struct sequence *q = s->running.first, *next; q; q = next) {
        next = q->next;
        if (q->group != g || q->lone_deaths < LONE_DEATHS_MOST)
            continue;
        log_error("%s ends with an error: %u times in a row a worker died while it computed nothing else", q->id,
                  q->lone_deaths);
        s->counters.convicted++;
        scheduler_end_sequence(s, q, FINISH_ERROR);
    }
}

/* True: it is convicted. */
static bool blame(struct sequence *q, uint32_t rank)
{
    bool ran_alone = scheduler_runs_alone(q);
    bool another = q->suspect_deaths && (q->several_ranks || q->suspect_rank != rank);
    q->several_ranks = another || rank == UINT32_MAX;
    q->suspect_rank = rank;
    q->suspect_deaths++;
    q->good_rows = 0;
    return ran_alone && q->accused_alone;
}

static enum verdict blame_list(struct scheduler *s, const struct sequence_list *list, uint32_t group, uint32_t rank)
{
    enum verdict verdict = VERDICT_NONE;
    for (struct sequence *q = list->first, *next; q; q = next) {
        next = q->next;
        if (q->group != group || !q->accused || !blame(q, rank))
            continue;
        verdict = q->several_ranks ? VERDICT_GUILTY : VERDICT_GUILTY_AT_RANK;
        log_error("%s ends with an error: alone in its plan it ended the worker that computed it, after %u such deaths",
                  q->id, q->suspect_deaths - 1);
        s->counters.convicted++;
        scheduler_end_sequence(s, q, FINISH_ERROR);
    }
    return verdict;
}

enum verdict scheduler_blame(struct scheduler *s, uint32_t g, uint32_t rank)
{
    enum verdict running = blame_list(s, &s->running, g, rank);
    enum verdict waiting = blame_list(s, &s->waiting, g, rank);
    scheduler_acquit(s, &s->groups[g]);
    return running > waiting ? running : waiting;
}
