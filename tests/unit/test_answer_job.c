/* test_answer_job: an answer written by a helper says what it said when the job was made, whatever becomes of it meanwhile. */
#include "coordinator/answer_job.h"

#include <pthread.h>
#include <semaphore.h>

#include "tests/support/api_rig.h"

enum { CHOICES = 3, MOST_TOKENS = 64 };

static struct event_base *loop;
static struct job_pool *pool;
static uint32_t done_jobs;

/* Holds the pool's one thread until it is let go. */
struct gate {
    struct job job; /* first: the job is this */
    sem_t go_on;
    pthread_t ran_on;
};

static void wait_at_gate(struct job *job)
{
    struct gate *g = (struct gate *)job;
    g->ran_on = pthread_self();
    sem_wait(&g->go_on);
}

static void on_done(struct job *job)
{
    (void)job;
    done_jobs++;
}

static void close_gate(struct gate *g)
{
    *g = (struct gate){.job = {.run = wait_at_gate, .done = on_done}};
    sem_init(&g->go_on, 0, 0);
    job_pool_submit(pool, &g->job);
}

/* The rig of *state, and a pool of one thread; skips the test when there is no rig. */
static struct api_rig *open_pool(void **state)
{
    struct api_rig *rig = api_rig_of(state);
    struct why why;
    done_jobs = 0;
    loop = event_base_new();
    assert_int_equal(job_pool_open(&pool, loop, 1, &why), OK);
    return rig;
}

static void close_pool(void)
{
    if (pool)
        job_pool_close(pool);
    pool = NULL;
    event_base_free(loop);
}

static void wait_for(uint32_t jobs)
{
    while (done_jobs < jobs)
        event_base_loop(loop, EVLOOP_ONCE);
}

/* An answer on its way, as sequences make it. */
struct play {
    struct api_request *request;
    struct api_answer answer;
    struct api_choice choices[CHOICES];
    struct answer_text texts[CHOICES];
    uint32_t tokens[CHOICES][MOST_TOKENS];
    struct position_scores scores[CHOICES][MOST_TOKENS];
};

static void say(struct play *p, const struct api_rig *rig, uint32_t tokens)
{
    for (uint32_t i = 0; i < CHOICES; i++)
        for (uint32_t t = 0; t < tokens; t++) {
            uint32_t at = p->texts[i].tokens, token = 1000 + 17 * at + i;
            p->tokens[i][at] = token;
            p->scores[i][at] =
                (struct position_scores){.logprob = -0.1f * (float)at, .top_count = p->request->top_logprobs};
            for (uint32_t k = 0; k < p->request->top_logprobs; k++)
                p->scores[i][at].top[k] = (struct result_top){(token + k) % rig->context.vocab, -0.37f * (float)k};
            answer_text_push(&p->texts[i], token);
        }
}

static struct play *begin(struct api_rig *rig, enum api_kind kind, const char *body)
{
    struct play *p = calloc(1, sizeof *p);
    p->request = api_rig_parse(rig, kind, body);
    assert_int_equal(api_request_choices(p->request), CHOICES);
    p->answer = (struct api_answer){&rig->context, p->request, "id-1", 1700000000, p->choices};
    for (uint32_t i = 0; i < CHOICES; i++) {
        answer_text_init(&p->texts[i], &rig->context, p->request);
        p->choices[i] = (struct api_choice){
            .answer = &p->texts[i], .tokens = p->tokens[i], .scores = p->request->logprobs ? p->scores[i] : NULL};
    }
    return p;
}

static void end(struct play *p)
{
    for (uint32_t i = 0; i < CHOICES; i++)
        answer_text_fini(&p->texts[i]);
    api_request_free(p->request);
    free(p);
}

static void expect_same(const struct text *a, const struct text *b)
{
    assert_false(a->failed || b->failed);
    assert_int_equal(a->length, b->length);
    assert_memory_equal(a->at, b->at, a->length);
}

static const char chat[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"n\":3,\"logprobs\":true,"
                           "\"top_logprobs\":20,\"max_tokens\":60,\"return_token_ids\":true}";
static const char completion[] = "{\"prompt\":\"Hi\",\"n\":3,\"logprobs\":5,\"max_tokens\":60}";

static void job_writes_the_answer_as_it_was_when_the_job_was_made(void **state)
{
    struct api_rig *rig = open_pool(state);
    const struct {
        enum api_kind kind;
        const char *body;
    } asked[] = {{API_CHAT, chat}, {API_COMPLETION, completion}};
    for (int a = 0; a < 2; a++) {
        struct play *p = begin(rig, asked[a].kind, asked[a].body);
        struct text before = {0}, after = {0};
        struct answer_job job;
        struct gate gate;
        say(p, rig, 10);
        api_answer_write(&before, &p->answer);
        assert_true(answer_job_init(&job, &p->answer, on_done));
        done_jobs = 0;
        close_gate(&gate);
        job_pool_submit(pool, &job.job);
        say(p, rig, 40); /* texts and their ends move, choices finish */
        for (uint32_t i = 0; i < CHOICES; i++) {
            answer_text_finish(&p->texts[i]);
            p->choices[i].finished = true;
        }
        assert_int_equal(job.text.length, 0); /* the loop's thread has written nothing of it */
        sem_post(&gate.go_on);
        wait_for(2);
        assert_true(job.ran);
        assert_false(pthread_equal(gate.ran_on, pthread_self()));
        expect_same(&job.text, &before);
        answer_job_fini(&job);

        assert_true(answer_job_init(&job, &p->answer, on_done));
        job_pool_submit(pool, &job.job);
        wait_for(3);
        api_answer_write(&after, &p->answer);
        expect_same(&job.text, &after);
        assert_true(after.length > before.length);
        answer_job_fini(&job);
        text_fini(&before);
        text_fini(&after);
        sem_destroy(&gate.go_on);
        end(p);
    }
    close_pool();
}

static void job_may_be_of_an_answer_that_has_not_begun(void **state)
{
    struct api_rig *rig = open_pool(state);
    struct play *p = begin(rig, API_CHAT, chat);
    struct text whole = {0};
    struct answer_job job;
    api_answer_write(&whole, &p->answer);
    assert_true(answer_job_init(&job, &p->answer, on_done));
    job_pool_submit(pool, &job.job);
    wait_for(1);
    expect_same(&job.text, &whole);
    answer_job_fini(&job);
    text_fini(&whole);
    end(p);
    close_pool();
}

static void job_that_a_closing_pool_gives_back_says_that_it_has_not_run(void **state)
{
    struct api_rig *rig = open_pool(state);
    struct play *p = begin(rig, API_CHAT, chat);
    struct answer_job job;
    struct gate gate;
    close_gate(&gate);
    say(p, rig, 10);
    assert_true(answer_job_init(&job, &p->answer, on_done));
    job_pool_submit(pool, &job.job);
    while (job_pool_pending(pool) != 2)
        event_base_loop(loop, EVLOOP_ONCE);
    sem_post(&gate.go_on);
    job_pool_close(pool);
    pool = NULL;
    assert_int_equal(done_jobs, 2);
    assert_int_equal(job.ran, job.text.length > 0); /* the thread may have come to it or not */
    answer_job_fini(&job);
    sem_destroy(&gate.go_on);
    end(p);
    close_pool();
}

static void estimate_is_near_what_is_written(void **state)
{
    struct api_rig *rig = api_rig_of(state);
    struct play *p = begin(rig, API_CHAT, chat);
    say(p, rig, 50);
    struct text whole = {0};
    api_answer_write(&whole, &p->answer);
    assert_in_range(api_answer_estimate(&p->answer), whole.length / 3, 3 * whole.length);
    text_fini(&whole);
    end(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(job_writes_the_answer_as_it_was_when_the_job_was_made),
        cmocka_unit_test(job_may_be_of_an_answer_that_has_not_begun),
        cmocka_unit_test(job_that_a_closing_pool_gives_back_says_that_it_has_not_run),
        cmocka_unit_test(estimate_is_near_what_is_written),
    };
    return cmocka_run_group_tests(tests, api_rig_open, api_rig_close);
}
