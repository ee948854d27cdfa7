/*
 * api_unbuilt: fields that OpenAI, vLLM or llama.cpp document, that would change the answer, and that are not built.
 * To ignore one would give an answer to another question, so it is refused by name; its neutral value asks for
 * nothing and is good.
 */
#include <string.h>

#include "coordinator/api_request_internal.h"

static bool nothing(const json_t *value)
{
    (void)value;
    return false;
}

static bool empty(const json_t *value)
{
    return json_is_false(value) || (json_is_string(value) && json_string_length(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0);
}

static bool off(const json_t *value)
{
    return json_is_false(value) || (json_is_number(value) && json_number_value(value) == 0);
}

static bool on(const json_t *value)
{
    return json_is_true(value);
}

static bool one(const json_t *value)
{
    return json_is_number(value) && json_number_value(value) == 1;
}

static bool minus_one(const json_t *value)
{
    return json_is_number(value) && json_number_value(value) == -1;
}

static bool is_word(const json_t *value, const char *word)
{
    return json_is_string(value) && strcmp(json_string_value(value), word) == 0;
}

/* "none", and "auto" where there is no tool to choose: tools themselves are in the list. */
static bool no_choice(const json_t *value)
{
    return is_word(value, "none") || is_word(value, "auto");
}

static bool text_only(const json_t *value)
{
    return json_is_array(value) && json_array_size(value) == 1 && is_word(json_array_get(value, 0), "text");
}

static bool text_format(const json_t *value)
{
    return json_is_object(value) && is_word(json_object_get(value, "type"), "text");
}

enum { CHAT = 1, COMPLETION = 2, BOTH = CHAT | COMPLETION };

static const struct unbuilt {
    const char *name;
    int kinds;
    bool (*asks_nothing)(const json_t *value);
} unbuilt[] = {
    /* OpenAI */
    {"response_format", BOTH, text_format},
    {"tool_choice", CHAT, no_choice},
    {"functions", CHAT, empty},
    {"function_call", CHAT, no_choice},
    {"modalities", CHAT, text_only},
    {"audio", CHAT, nothing},
    {"prediction", CHAT, nothing},
    {"web_search_options", CHAT, nothing},
    {"verbosity", CHAT, nothing},
    {"moderation", CHAT, nothing},
    {"suffix", COMPLETION, empty},
    {"best_of", BOTH, one},
    /* vLLM */
    {"use_beam_search", BOTH, off},
    {"length_penalty", BOTH, one},
    {"include_stop_str_in_output", BOTH, off},
    {"skip_special_tokens", BOTH, on},
    {"spaces_between_special_tokens", BOTH, on},
    {"truncate_prompt_tokens", BOTH, nothing},
    {"prompt_logprobs", BOTH, off},
    {"prompt_embeds", BOTH, nothing},
    {"allowed_token_ids", BOTH, nothing},
    {"bad_words", BOTH, empty},
    {"structured_outputs", BOTH, nothing},
    {"guided_json", BOTH, nothing},
    {"guided_regex", BOTH, nothing},
    {"guided_choice", BOTH, nothing},
    {"guided_grammar", BOTH, nothing},
    {"logits_processors", BOTH, empty},
    {"priority", BOTH, off},
    {"return_tokens_as_token_ids", BOTH, off},
    {"documents", CHAT, empty},
    {"chat_template", CHAT, nothing}, /* a template from outside is a program from outside: never run */
    /* llama.cpp */
    {"grammar", BOTH, empty},
    {"json_schema", BOTH, nothing},
    {"typical_p", BOTH, one},
    {"mirostat", BOTH, off},
    {"dynatemp_range", BOTH, off},
    {"xtc_probability", BOTH, off},
    {"dry_multiplier", BOTH, off},
    {"top_n_sigma", BOTH, minus_one},
    {"lora", BOTH, empty},
};

/* Tools that nobody may call need no parser, and no place in the prompt. */
static bool tools_asked(const struct api_fields *f)
{
    const json_t *tools = api_field(f, "tools"), *choice = api_field(f, "tool_choice");
    return tools && !empty(tools) && !(choice && is_word(choice, "none"));
}

enum err api_refuse_unbuilt(const struct api_fields *f, enum api_kind kind)
{
    int bit = kind == API_CHAT ? CHAT : COMPLETION;
    if (kind == API_CHAT && tools_asked(f))
        return api_field_refuse(f, "tools", "tools are not built yet; leave tools out, or set tool_choice to \"none\"");
    for (size_t i = 0; i < sizeof unbuilt / sizeof *unbuilt; i++) {
        const json_t *value = unbuilt[i].kinds & bit ? api_field(f, unbuilt[i].name) : NULL;
        if (value && !unbuilt[i].asks_nothing(value))
            return api_field_refuse(f, unbuilt[i].name, "%s is not built yet with this value; leave it out",
                                    unbuilt[i].name);
    }
    return OK;
}
