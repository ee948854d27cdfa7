//! `{% generation %}` marks what the model says, for training. Rendering only prints the body, so the two tags become
//! `{% if true %}` and `{% endif %}` before the engine, which does not know them, reads the template. Strings, comments
//! and raw blocks are left alone.

/// The template with its generation tags rewritten.
pub fn rewrite_generation_tags(template: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = next_opening(rest) {
        let (before, from_tag) = rest.split_at(start);
        out.push_str(before);
        let end = match &from_tag[..2] {
            "{#" => from_tag.find("#}").map_or(from_tag.len(), |at| at + 2),
            "{{" => end_of_code(from_tag, "}}"),
            _ => end_of_code(from_tag, "%}"),
        };
        let (mut tag, mut after) = from_tag.split_at(end);
        match word_of(tag) {
            "generation" => out.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endif", 1)),
            "raw" => {
                let raw = after.len() - after_raw(after).len();
                (tag, after) = from_tag.split_at(end + raw);
                out.push_str(tag);
            }
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

fn next_opening(text: &str) -> Option<usize> {
    text.as_bytes().windows(2).position(|pair| matches!(pair, b"{%" | b"{#" | b"{{"))
}

/// Where the code that begins at `text` ends, closing mark included; strings may hold the mark.
fn end_of_code(text: &str, mark: &str) -> usize {
    let bytes = text.as_bytes();
    let mut quote = None;
    let mut at = 2;
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(open), byte) if byte == open => quote = None,
            (None, byte @ (b'"' | b'\'')) => quote = Some(byte),
            (None, _) if bytes[at..].starts_with(mark.as_bytes()) => return at + mark.len(),
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// The only word of a block tag that stands alone in it, or "".
fn word_of(tag: &str) -> &str {
    let inner = tag.strip_prefix("{%").and_then(|t| t.strip_suffix("%}")).unwrap_or("");
    inner.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim()
}

/// What follows the `{% endraw %}` that closes a raw block.
fn after_raw(text: &str) -> &str {
    let mut rest = text;
    while let Some(start) = rest.find("{%") {
        let tag = &rest[start..];
        let end = tag.find("%}").map_or(tag.len(), |at| at + 2);
        if word_of(&tag[..end]) == "endraw" {
            return &tag[end..];
        }
        rest = &tag[2..];
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::rewrite_generation_tags as rewrite;

    #[test]
    fn tags_become_a_condition_that_holds() {
        assert_eq!(rewrite("a{%- generation -%}b{% endgeneration %}c"), "a{%- if true -%}b{% endif %}c");
    }

    #[test]
    fn strings_comments_and_raw_blocks_stay() {
        for same in [
            "{{ '{% generation %}' }}",
            "{% set x = \"%}{% generation %}\" %}",
            "{# {% generation %} #}",
            "{% raw %}{% generation %}{% endraw %}",
            "{% if generation %}x{% endif %}",
        ] {
            assert_eq!(rewrite(same), same);
        }
    }

    #[test]
    fn cut_tags_end_with_the_text() {
        for same in ["{%", "{% generation", "{# x", "{{ 'a", "{% raw %}{% endraw", "é{"] {
            assert_eq!(rewrite(same), same);
        }
    }
}
