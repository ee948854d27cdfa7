/* api_chat: messages in, the tokens of the rendered chat template out. */
#include <stdlib.h>
#include <string.h>

#include "coordinator/api_request_internal.h"
#include "coordinator/control_guard.h"
#include "coordinator/json_scan.h"
#include "model/chat_template.h"

static const char *const roles[] = {"system", "developer", "user", "assistant", "tool"};
enum role { ROLE_SYSTEM, ROLE_DEVELOPER, ROLE_USER, ROLE_ASSISTANT, ROLE_TOOL, ROLE_COUNT };

/* ROLE_COUNT: none of them. */
static enum role role_of(const json_t *message)
{
    const char *name = json_string_value(json_object_get(message, "role"));
    for (enum role role = 0; name && role < ROLE_COUNT; role++)
        if (strcmp(name, roles[role]) == 0)
            return role;
    return ROLE_COUNT;
}

/* Parts of type text, one line each; templates know only strings. */
static enum err join_parts(const struct api_fields *f, const json_t *parts, json_t **out)
{
    struct text joined = {0};
    size_t i;
    json_t *part;
    json_array_foreach ((json_t *)parts, i, part) {
        const char *type = json_string_value(json_object_get(part, "type"));
        const json_t *words = json_object_get(part, "text");
        if (!type || strcmp(type, "text") != 0 || !json_is_string(words)) {
            text_fini(&joined);
            return api_field_refuse(
                f, "messages",
                "a part of a message's content must be {\"type\": \"text\", \"text\": \"…\"}; %s is not built",
                type ? type : "anything else");
        }
        if (i > 0)
            text_add(&joined, "\n", 1);
        text_add(&joined, json_string_value(words), json_string_length(words));
    }
    *out = joined.failed ? NULL : json_stringn(joined.at ? joined.at : "", joined.length);
    text_fini(&joined);
    return *out ? OK : api_no_memory(f->error);
}

static enum err read_content(const struct api_fields *f, size_t index, const json_t *message, json_t **out)
{
    const json_t *content = json_object_get(message, "content"), *calls = json_object_get(message, "tool_calls");
    if (json_is_string(content)) {
        *out = json_copy((json_t *)content);
        return *out ? OK : api_no_memory(f->error);
    }
    if (json_is_array(content) && json_array_size(content) > 0)
        return join_parts(f, content, out);
    if ((!content || json_is_null(content)) && role_of(message) == ROLE_ASSISTANT && json_array_size(calls) > 0) {
        *out = json_null();
        return OK;
    }
    return api_field_refuse(f, "messages",
                            "the content of message %zu must be a string or an array of text parts, not %s", index,
                            content ? json_kind(content) : "left out");
}

/*
 * Clients send a call's arguments as a JSON text; templates print an object in the model's own way. What is no object
 * stays a text. *values_left is what all of them together may still hold: JSON within JSON was not counted with the
 * body.
 */
static enum err open_arguments(const struct api_fields *f, size_t index, json_t *function, uint32_t *values_left)
{
    const json_t *arguments = json_object_get(function, "arguments");
    if (!json_is_string(arguments))
        return OK;
    struct json_fault fault;
    uint32_t values;
    const char *text = json_string_value(arguments);
    size_t length = json_string_length(arguments);
    if (json_scan(text, length, &values, &fault) != OK || values > *values_left)
        return api_field_refuse(f, "messages", "the arguments of the tool calls up to message %zu have too many values",
                                index);
    *values_left -= values;
    json_t *object;
    enum err err = json_body_parse(text, length, &object, &fault);
    if (err == ERR_NOMEM || (err == OK && json_object_set_new(function, "arguments", object) != 0))
        return api_no_memory(f->error);
    return OK;
}

static enum err read_calls(const struct api_fields *f, size_t index, const json_t *message, uint32_t *values_left,
                           json_t *out)
{
    const json_t *calls = json_object_get(message, "tool_calls");
    if (!calls || json_is_null(calls))
        return OK;
    if (!json_is_array(calls))
        return api_field_refuse(f, "messages", "tool_calls of message %zu must be an array, not %s", index,
                                json_kind(calls));
    json_t *copy = json_deep_copy(calls), *call;
    if (!copy || json_object_set_new(out, "tool_calls", copy) != 0)
        return api_no_memory(f->error);
    size_t i;
    json_array_foreach (copy, i, call) {
        json_t *function = json_object_get(call, "function");
        if (!json_is_string(json_object_get(function, "name")))
            return api_field_refuse(f, "messages", "tool call %zu of message %zu has no function with a name", i,
                                    index);
        enum err err = open_arguments(f, index, function, values_left);
        if (err != OK)
            return err;
    }
    return OK;
}

/* Strings that a message may carry besides its content. */
static enum err read_names(const struct api_fields *f, size_t index, const json_t *message, json_t *out)
{
    static const struct {
        const char *from, *to;
    } names[] = {{"name", "name"},
                 {"tool_call_id", "tool_call_id"},
                 {"reasoning", "reasoning_content"},
                 {"reasoning_content", "reasoning_content"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        json_t *value = json_object_get(message, names[i].from);
        if (!value || json_is_null(value))
            continue;
        if (!json_is_string(value))
            return api_field_refuse(f, "messages", "%s of message %zu must be a string, not %s", names[i].from, index,
                                    json_kind(value));
        if (json_object_set(out, names[i].to, value) != 0)
            return api_no_memory(f->error);
    }
    return OK;
}

static enum err read_message(const struct api_fields *f, size_t index, const json_t *message, uint32_t *values_left,
                             json_t *out)
{
    if (!json_is_object(message))
        return api_field_refuse(f, "messages", "message %zu must be an object, not %s", index, json_kind(message));
    enum role role = role_of(message);
    if (role == ROLE_COUNT)
        return api_field_refuse(f, "messages",
                                "the role of message %zu must be system, developer, user, assistant or tool", index);
    json_t *content = NULL;
    enum err err = read_content(f, index, message, &content);
    if (err != OK)
        return err;
    /* Templates know no developer: it is the later name of the same role. */
    if (json_object_set_new(out, "role", json_string(roles[role == ROLE_DEVELOPER ? ROLE_SYSTEM : role])) != 0) {
        json_decref(content);
        return api_no_memory(f->error);
    }
    if (json_object_set_new(out, "content", content) != 0)
        return api_no_memory(f->error);
    if ((err = read_names(f, index, message, out)) != OK)
        return err;
    return read_calls(f, index, message, values_left, out);
}

static enum err read_messages(const struct api_fields *f, json_t **out)
{
    const json_t *messages = api_field(f, "messages");
    if (!messages)
        return api_field_refuse(f, "messages", "messages is missing");
    if (!json_is_array(messages) || json_array_size(messages) == 0)
        return api_field_refuse(f, "messages", "messages must be an array with at least one message");
    *out = json_array();
    uint32_t values_left = JSON_MOST_VALUES;
    size_t i;
    json_t *message;
    json_array_foreach ((json_t *)messages, i, message) {
        json_t *copy = json_object();
        if (!copy || json_array_append_new(*out, copy) != 0)
            return api_no_memory(f->error);
        enum err err = read_message(f, i, message, &values_left, copy);
        if (err != OK)
            return err;
    }
    return OK;
}

struct prompt_end {
    bool add_generation_prompt;
    bool continue_final_message;
};

static enum err read_end(const struct api_fields *f, struct prompt_end *end)
{
    *end = (struct prompt_end){.add_generation_prompt = true};
    enum err err;
    if ((err = api_field_bool(f, "continue_final_message", &end->continue_final_message)) != OK)
        return err;
    end->add_generation_prompt = !end->continue_final_message;
    if ((err = api_field_bool(f, "add_generation_prompt", &end->add_generation_prompt)) != OK)
        return err;
    if (end->add_generation_prompt && end->continue_final_message)
        return api_field_refuse(f, "continue_final_message",
                                "add_generation_prompt and continue_final_message cannot both be true");
    return OK;
}

static bool set_token(json_t *variables, const char *name, const struct tokenizer *tokenizer, uint32_t id)
{
    size_t length;
    if (id == TOKEN_NONE)
        return true;
    const char *text = tokenizer_token_text(tokenizer, id, &length);
    return json_object_set_new(variables, name, json_stringn(text, length)) == 0;
}

/* What the template sees. chat_template_kwargs come first, so that they cannot stand in for what we say. */
static enum err make_variables(const struct api_fields *f, const struct api_context *context,
                               const struct prompt_end *end, struct guard_mark *mark, json_t **out)
{
    struct api_fields kwargs;
    const char *effort = NULL;
    size_t effort_bytes;
    json_t *messages = NULL;
    enum err err;
    if ((err = api_field_object(f, "chat_template_kwargs", &kwargs)) != OK ||
        (err = api_field_string(f, "reasoning_effort", &effort, &effort_bytes)) != OK)
        return err;
    json_t *variables = kwargs.object ? json_copy((json_t *)kwargs.object) : json_object();
    if (!variables)
        return api_no_memory(f->error);
    if (effort && json_object_set_new(variables, "reasoning_effort", json_stringn(effort, effort_bytes)) != 0) {
        err = api_no_memory(f->error);
        goto done;
    }
    err = read_messages(f, &messages);
    if (err == OK && json_object_set(variables, "messages", messages) != 0)
        err = api_no_memory(f->error);
    if (err != OK)
        goto done;

    if (control_guard_choose(variables, mark) != OK) {
        err = api_field_refuse(f, "messages",
                               "the messages hold all of U+FDD0 to U+FDEF, which no text may carry; leave one out");
        goto done;
    }
    *out = control_guard_copy(context->guard, *mark, variables);
    if (!*out || json_object_set_new(*out, "add_generation_prompt", json_boolean(end->add_generation_prompt)) != 0 ||
        !set_token(*out, "bos_token", context->tokenizer, tokenizer_bos(context->tokenizer)) ||
        !set_token(*out, "eos_token", context->tokenizer, tokenizer_eos(context->tokenizer)))
        err = api_no_memory(f->error);
done:
    json_decref(messages);
    json_decref(variables);
    return err;
}

/* Cuts the text behind the last message's content, as transformers does, so that the answer goes on within it. */
static enum err cut_behind_final_message(const struct api_fields *f, const json_t *variables, const char *text,
                                         size_t *length)
{
    const json_t *messages = json_object_get(variables, "messages");
    const json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    const json_t *content = json_object_get(last, "content");
    if (role_of(last) != ROLE_ASSISTANT || !json_is_string(content))
        return api_field_refuse(f, "continue_final_message",
                                "continue_final_message wants a last message of the assistant, with content");
    const char *words = json_string_value(content), *end = words + json_string_length(content);
    while (words < end && strchr(" \t\r\n", *words) && *words)
        words++;
    const char *trimmed_end = end;
    while (words < trimmed_end && strchr(" \t\r\n", trimmed_end[-1]) && trimmed_end[-1])
        trimmed_end--;
    size_t trimmed = (size_t)(trimmed_end - words), whole = (size_t)(end - words);
    for (size_t at = trimmed > 0 && trimmed <= *length ? *length - trimmed + 1 : 0; at-- > 0;) {
        if (memcmp(text + at, words, trimmed) != 0)
            continue;
        bool spaces_too = at + whole <= *length && memcmp(text + at, words, whole) == 0;
        *length = at + (spaces_too ? whole : trimmed);
        return OK;
    }
    return api_field_refuse(f, "continue_final_message",
                            "the chat template does not show the last message's content as it is");
}

static enum err encode_rendered(const struct api_fields *f, const struct api_context *context, struct guard_mark mark,
                                const char *text, size_t length, struct token_list *out)
{
    if (!memmem(text, length, mark.bytes, sizeof mark.bytes))
        return api_encode(f, context, "messages", text, length, true, out);
    struct why why;
    enum err err = control_guard_encode(context->tokenizer, mark, text, length, out, &why);
    if (err == ERR_NOMEM)
        return api_no_memory(f->error);
    return err == OK ? OK : api_field_refuse(f, "messages", "%s", why.text);
}

/* Some templates write the begin token, some leave it to the tokenizer: exactly one stands there. */
static enum err add_missing_bos(const struct api_fields *f, const struct tokenizer *tokenizer, size_t first,
                                struct token_list *ids)
{
    uint32_t bos = tokenizer_bos(tokenizer);
    if (!tokenizer_adds_bos(tokenizer) || bos == TOKEN_NONE || (ids->count > first && ids->ids[first] == bos))
        return OK;
    if (!token_list_push(ids, bos))
        return api_no_memory(f->error);
    memmove(ids->ids + first + 1, ids->ids + first, (ids->count - first - 1) * sizeof *ids->ids);
    ids->ids[first] = bos;
    return OK;
}

enum err api_chat_tokens(const struct api_fields *f, const struct api_context *context, struct token_list *out)
{
    if (!context->chat_template)
        return api_field_refuse(f, "messages", "the model has no chat template; use /v1/completions");
    struct prompt_end end;
    struct guard_mark mark;
    json_t *variables = NULL;
    char *text = NULL;
    size_t length, first = out->count;
    enum err err = read_end(f, &end);
    if (err == OK)
        err = make_variables(f, context, &end, &mark, &variables);
    if (err == OK) {
        struct why why;
        err = chat_template_render(context->chat_template, variables, NULL, &text, &length, &why);
        if (err == ERR_NOMEM)
            err = api_no_memory(f->error);
        else if (err != OK)
            err = api_field_refuse(f, "messages", "%s", why.text);
    }
    if (err == OK && end.continue_final_message)
        err = cut_behind_final_message(f, variables, text, &length);
    if (err == OK)
        err = encode_rendered(f, context, mark, text, length, out);
    if (err == OK)
        err = add_missing_bos(f, context->tokenizer, first, out);
    json_decref(variables);
    free(text);
    return err;
}

enum err api_chat_prompt(const struct api_fields *f, const struct api_context *context, int64_t max_tokens,
                         struct api_request *r)
{
    r->prompts = calloc(1, sizeof *r->prompts);
    if (!r->prompts)
        return api_no_memory(f->error);
    r->prompt_count = 1;
    struct token_list ids = {0};
    enum err err = api_chat_tokens(f, context, &ids);
    if (err == OK)
        err = api_prompt_take(f, context, "messages", max_tokens, &ids, r->prompts);
    token_list_fini(&ids);
    return err;
}
