/* answer_job: see answer_job.h. */
#include "coordinator/answer_job.h"

#include <stdlib.h>
#include <string.h>

static void run(struct job *job)
{
    struct answer_job *j = (struct answer_job *)job;
    api_answer_write(&j->text, &j->answer);
    j->ran = true;
}

/* The text and where its tokens end; nothing is pushed to the copy. */
static bool copy_text(struct answer_text *to, const struct answer_text *from)
{
    *to = *from;
    to->text = (struct text){0};
    to->ends = malloc((from->tokens + 1u) * sizeof *to->ends);
    if (!to->ends)
        return false;
    if (from->tokens)
        memcpy(to->ends, from->ends, from->tokens * sizeof *to->ends);
    text_add(&to->text, from->text.at, from->text.length);
    return !to->text.failed;
}

bool answer_job_init(struct answer_job *j, const struct api_answer *a, void (*done)(struct job *))
{
    uint32_t count = api_request_choices(a->request);
    *j = (struct answer_job){.job = {.run = run, .done = done}, .answer = *a, .count = count};
    j->choices = calloc(count, sizeof *j->choices);
    j->texts = calloc(count, sizeof *j->texts);
    j->answer.choices = j->choices;
    bool good = j->choices && j->texts;
    for (uint32_t i = 0; good && i < count; i++) {
        j->choices[i] = a->choices[i];
        j->choices[i].answer = &j->texts[i];
        good = copy_text(&j->texts[i], a->choices[i].answer);
    }
    if (!good)
        answer_job_fini(j);
    return good;
}

void answer_job_fini(struct answer_job *j)
{
    for (uint32_t i = 0; j->texts && i < j->count; i++)
        answer_text_fini(&j->texts[i]);
    free(j->texts);
    free(j->choices);
    text_fini(&j->text);
}
