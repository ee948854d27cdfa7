/* quire inspect: shows the shared memory of a live or dead server, for people or as JSON. */
#include <stdio.h>
#include <string.h>

#include "coordinator/command.h"
#include "coordinator/command_input.h"
#include "coordinator/text.h"
#include "shm/inspect.h"

static const struct command_usage usage = {
    .text = "usage: quire inspect [--json] [options]\n"
            "Shows the shared memory of the server --name, live or dead: workers, pages, sessions, versions.\n",
    .groups = OF_MEMORY,
};

static void field(struct text *out, const char *name, uint64_t value)
{
    char last = out->at[out->length - 1];
    text_add_string(out, last == '{' || last == '[' ? "" : ",");
    text_json_string_z(out, name);
    text_add_string(out, ":");
    text_add_u64(out, value);
}

static void field_text(struct text *out, const char *name, const char *value)
{
    char last = out->at[out->length - 1];
    text_add_string(out, last == '{' || last == '[' ? "" : ",");
    text_json_string_z(out, name);
    text_add_string(out, ":");
    text_json_string_z(out, value);
}

static void field_bool(struct text *out, const char *name, bool value)
{
    text_add_string(out, out->at[out->length - 1] == '{' ? "" : ",");
    text_json_string_z(out, name);
    text_add_string(out, value ? ":true" : ":false");
}

static void add_pages(struct text *out, const struct inspection *found)
{
    text_add_string(out, ",\"pages\":{");
    field(out, "total", found->page_count);
    for (uint32_t i = 0; i < PAGE_STATES; i++)
        field(out, page_state_name((enum page_state)i), found->pages_by_state[i]);
    field(out, "shared", found->shared_pages);
    field(out, "damaged", found->damaged_pages);
    text_add_string(out, "}");
}

static void add_workers(struct text *out, const struct inspection *found)
{
    text_add_string(out, ",\"workers\":[");
    for (uint32_t i = 0; i < found->worker_count; i++) {
        const struct inspected_worker *w = &found->workers[i];
        text_add_string(out, i ? ",{" : "{");
        field(out, "slot", w->slot);
        field(out, "generation", w->generation);
        field(out, "pid", w->pid);
        field_bool(out, "alive", w->alive);
        field_text(out, "state", worker_state_name(w->state));
        field(out, "group", w->group);
        field(out, "rank", w->rank);
        field(out, "epoch", w->epoch);
        field(out, "step_done", w->step_done);
        field(out, "steps", w->steps);
        field(out, "tokens", w->tokens);
        field(out, "busy_us", w->busy_us);
        field(out, "wait_us", w->wait_us);
        field(out, "aborts", w->aborts);
        text_add_string(out, "}");
    }
    text_add_string(out, "]");
}

static void add_sessions(struct text *out, const struct inspection *found)
{
    text_add_string(out, ",\"sessions\":[");
    for (uint32_t i = 0; i < found->session_count; i++) {
        const struct inspected_session *s = &found->sessions[i];
        text_add_string(out, i ? ",{" : "{");
        field(out, "slot", s->slot);
        field_text(out, "id", s->id);
        field_text(out, "state", session_state_name(s->state));
        field(out, "tokens", s->tokens);
        field(out, "kv", s->kv);
        field(out, "prompt_tokens", s->prompt_tokens);
        field(out, "pages", s->pages);
        field(out, "window_pages", s->window_pages);
        text_add_string(out, "}");
    }
    text_add_string(out, "]");
}

/* False: there is no memory for it. */
static bool print_json(const struct inspection *found)
{
    struct text out = {0};
    text_add_string(&out, "{");
    field_text(&out, "name", found->name);
    field_bool(&out, "running", found->server_runs);
    field(&out, "holder_pid", found->holder_pid);
    field(&out, "header_version", found->header_version);
    field(&out, "layout_version", found->layout_version);
    field_text(&out, "state", arena_state_name(found->state));
    field(&out, "model_hash", found->model_hash);
    field(&out, "total_bytes", found->total_bytes);
    add_pages(&out, found);
    add_workers(&out, found);
    add_sessions(&out, found);
    text_add_string(&out, "}\n");
    bool whole = !out.failed && fwrite(out.at, 1, out.length, stdout) == out.length;
    text_fini(&out);
    return whole;
}

int command_inspect(int argc, char **argv)
{
    struct serve_options options;
    struct why why;
    bool json = false;
    int exit_code, kept = 1;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--json") == 0)
            json = true;
        else
            argv[kept++] = argv[i];
    serve_options_init(&options);
    if (!command_options(&options, &usage, kept, argv, NULL, &exit_code))
        return exit_code;
    struct segment_home home;
    struct inspection found;
    if (segment_home_init(&home, options.name, options.shm_dir, &why) || inspection_read(&found, &home, &why))
        return fail_with(argv[0], &why);
    bool shown = true;
    if (json)
        shown = print_json(&found);
    else
        inspection_print(&found, stdout);
    inspection_fini(&found);
    if (!shown)
        fprintf(stderr, "quire inspect: there is no memory to write all of it\n");
    return shown ? 0 : 1;
}
