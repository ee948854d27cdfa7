/* audit_work: what the parts of a run have to do at least: bytes to read and numbers to multiply. */
#include "coordinator/audit.h"
#include "model/served_model.h"

static void add_matrix(struct audit_work *to, const struct weight *w, double steps, double tokens)
{
    uint64_t bytes = 0;
    if (w->rows == 0 || !tiles_bytes((enum tensor_type)w->type, w->rows, w->cols, &bytes))
        return;
    bool quantised = tensor_type_traits((enum tensor_type)w->type)->block_elements > 1;
    double macs = (double)w->rows * w->cols * tokens;
    to->bytes += (double)bytes * steps;
    *(quantised ? &to->int8_macs : &to->f32_macs) += macs;
}

/* Of a mixture: as many experts as a token asks; how many a step reads is at least that, at most all. */
static void add_experts(struct audit_work *to, const struct model *m, const struct weight *w, double steps,
                        double tokens)
{
    double used = w->count > 1 ? m->experts_used : 1;
    double read = w->count > 1 && used * tokens / steps < w->count ? used * tokens / steps : w->count;
    struct audit_work one = {0};
    add_matrix(&one, w, steps, tokens);
    to->bytes += one.bytes * read;
    to->int8_macs += one.int8_macs * used;
    to->f32_macs += one.f32_macs * used;
}

/* Attention of `count` queries from `first` on: positions that they see, together, and that any of them sees. */
static void add_attention(struct audit_work *work, const struct model *m, uint32_t layer, uint32_t first,
                          uint32_t count)
{
    uint32_t window = model_window(m, layer), end = first + count;
    double seen = 0;
    for (uint32_t p = first; p < end; p++)
        seen += window && p + 1 > window ? window : p + 1;
    double any = window && end > window + count - 1 ? window + count - 1 : end;
    double bytes = any * m->kv_heads * (double)model_page_side_bytes(m) / ATTENTION_PAGE;
    double macs = seen * m->heads * m->head_dim;
    for (enum audit_part part = AUDIT_SCORES; part <= AUDIT_VALUES; part += AUDIT_VALUES - AUDIT_SCORES) {
        work[part].bytes += bytes;
        work[part].f32_macs += macs;
        work[AUDIT_ATTENTION].bytes += bytes;
        work[AUDIT_ATTENTION].f32_macs += macs;
    }
}

void audit_count_work(const struct audit_plan *p, const struct model *m, bool is_decode, uint32_t steps,
                      struct audit_result *to)
{
    double tokens = to->tokens;
    struct audit_work *work = to->work;
    for (uint32_t i = 0; i < m->layers; i++) {
        const struct model_layer *l = &m->layer[i];
        add_matrix(&work[AUDIT_QKV], &l->q, steps, tokens);
        add_matrix(&work[AUDIT_QKV], &l->k, steps, tokens);
        add_matrix(&work[AUDIT_QKV], &l->v, steps, tokens);
        add_matrix(&work[AUDIT_OUTPUT], &l->o, steps, tokens);
        add_matrix(&work[AUDIT_MLP], &l->router, steps, tokens);
        add_experts(&work[AUDIT_MLP], m, &l->gate, steps, tokens);
        add_experts(&work[AUDIT_MLP], m, &l->up, steps, tokens);
        add_experts(&work[AUDIT_MLP], m, &l->down, steps, tokens);
        for (uint32_t s = 0; s < steps; s++) {
            uint32_t first = is_decode ? p->prompt + s : s * AUDIT_STEP_TOKENS;
            uint32_t left = p->prompt - s * AUDIT_STEP_TOKENS;
            for (uint32_t b = 0; b < (is_decode ? p->batch : 1); b++)
                add_attention(work, m, i, first, is_decode ? 1 : left < AUDIT_STEP_TOKENS ? left : AUDIT_STEP_TOKENS);
        }
    }
    uint32_t rows = is_decode ? p->batch : 1,
             rounds = (rows + SERVED_LOGIT_ROWS_DEFAULT - 1) / SERVED_LOGIT_ROWS_DEFAULT;
    add_matrix(&work[AUDIT_HEAD], &m->head, is_decode ? steps * rounds : 1, is_decode ? tokens : 1);
}
