/*
 * markdown: the part of Markdown that models write, as DOM nodes.
 *
 * The text comes from a model and is never trusted: every character of it reaches the page through textContent or a
 * text node, and the only attribute made from it is the address of a link, http, https or mailto.
 */

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$/;
const ITEM = /^( *)(?:[-*+]|(\d{1,9})[.)])\s+(.*)$/;
const QUOTE = /^ {0,3}> ?(.*)$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;

/* What fits none of them is text. */
const CODE = /(`+)([^`]|[^`].*?[^`])\1(?!`)/s;
const BOLD = /\*\*(?=\S)(.+?)\*\*/s;
const ITALIC = /\*(?=[^\s*])([^*]*[^\s*])\*/s;
const LINK = /\[([^\]\n]+)\]\(([^()\s]+)\)/s;
const INLINE = new RegExp([CODE, BOLD, ITALIC, LINK].map((form) => form.source).join("|"), "s");

function element(name, ...children) {
    const made = document.createElement(name);
    made.append(...children);
    return made;
}

function link(label, address) {
    if (!/^(https?:\/\/|mailto:)/i.test(address))
        return document.createTextNode(`[${label}](${address})`);
    const made = element("a", label);
    made.href = address;
    made.rel = "noopener noreferrer";
    made.target = "_blank";
    return made;
}

function inline(text) {
    const nodes = [];
    for (let match; (match = INLINE.exec(text)); text = text.slice(match.index + match[0].length)) {
        const [, , code, bold, italic, label, address] = match;
        nodes.push(text.slice(0, match.index));
        if (code !== undefined)
            nodes.push(element("code", code.trim()));
        else if (bold !== undefined)
            nodes.push(element("strong", ...inline(bold)));
        else if (italic !== undefined)
            nodes.push(element("em", ...inline(italic)));
        else
            nodes.push(link(label, address));
    }
    nodes.push(text);
    return nodes;
}

function codeBlock(lines, language) {
    const code = element("code", lines.join("\n"));
    const copy = element("button", "Copy");
    copy.type = "button";
    copy.addEventListener("click", async () => {
        try {
            await navigator.clipboard.writeText(code.textContent);
            copy.textContent = "Copied";
        } catch {
            /* no clipboard over plain http: select it, so that the keyboard can copy */
            getSelection().selectAllChildren(code);
        }
    });
    const block = element("div", element("div", element("span", language || "code"), copy), element("pre", code));
    block.className = "code";
    return block;
}

/* Items by their indentation: a deeper one is a list within the one before it. */
function list(lines) {
    const levels = [];
    let text = [];
    const flush = () => {
        if (levels.length > 0)
            levels.at(-1).item.append(...inline(text.join("\n")));
        text = [];
    };
    for (const line of lines) {
        const match = ITEM.exec(line);
        if (!match) {
            text.push(line.trim());
            continue;
        }
        flush();
        const [, indent, number, words] = match;
        while (levels.length > 1 && indent.length < levels.at(-1).indent)
            levels.pop();
        if (levels.length === 0 || indent.length > levels.at(-1).indent + 1) {
            const inner = element(number ? "ol" : "ul");
            if (number)
                inner.start = Number(number);
            if (levels.length > 0)
                levels.at(-1).item.append(inner);
            levels.push({ list: inner, indent: indent.length });
        }
        levels.at(-1).item = element("li");
        levels.at(-1).list.append(levels.at(-1).item);
        text = [words];
    }
    flush();
    return levels[0].list;
}

/* ---- blocks: consecutive lines and how they are shown ---- */

const isBlank = (line) => line.trim() === "";
const startsBlock = (line) => [FENCE, HEADING, ITEM, QUOTE, RULE].some((form) => form.test(line));

function takeWhile(lines, from, fits) {
    let end = from;
    while (end < lines.length && fits(lines[end], end))
        end++;
    return end;
}

/* [first line after the block, function that makes its node] */
function blockAt(lines, at) {
    const line = lines[at];
    const fence = FENCE.exec(line);
    if (fence) {
        const end = takeWhile(lines, at + 1, (other) => other.trim() !== fence[1]);
        return [end + 1, () => codeBlock(lines.slice(at + 1, end), fence[2])];
    }
    const heading = HEADING.exec(line);
    if (heading) /* the page's own headings end at h2 */
        return [at + 1, () => element(`h${Math.min(heading[1].length + 2, 6)}`, ...inline(heading[2]))];
    if (RULE.test(line))
        return [at + 1, () => element("hr")];
    if (QUOTE.test(line)) {
        const end = takeWhile(lines, at, (other) => QUOTE.test(other));
        const quoted = lines.slice(at, end).map((other) => QUOTE.exec(other)[1]).join("\n");
        return [end, () => element("blockquote", ...blocks(quoted).map((block) => block.make()))];
    }
    if (ITEM.test(line)) {
        const indented = (other) => /^\s+\S/.test(other) && !FENCE.test(other);
        const gap = (other, i) => isBlank(other) && ITEM.test(lines[i + 1] || "");
        const end = takeWhile(lines, at, (other, i) => ITEM.test(other) || indented(other) || gap(other, i));
        return [end, () => list(lines.slice(at, end))];
    }
    const end = takeWhile(lines, at + 1, (other) => !isBlank(other) && !startsBlock(other));
    return [end, () => element("p", ...inline(lines.slice(at, end).join("\n")))];
}

function blocks(text) {
    const lines = text.replace(/\r\n?/g, "\n").split("\n");
    const found = [];
    for (let at = 0; at < lines.length;) {
        if (isBlank(lines[at])) {
            at++;
            continue;
        }
        const [end, make] = blockAt(lines, at);
        found.push({ source: lines.slice(at, end).join("\n"), make });
        at = end;
    }
    return found;
}

const shown = new WeakMap(); /* container -> sources of its children */

/* Shows `text` in `container`. While an answer grows only its last block is made anew. */
export function showMarkdown(container, text) {
    const now = blocks(text), before = shown.get(container) || [];
    let same = 0;
    while (same < now.length && same < before.length && now[same].source === before[same])
        same++;
    while (container.childNodes.length > same)
        container.lastChild.remove();
    container.append(...now.slice(same).map((block) => block.make()));
    shown.set(container, now.map((block) => block.source));
}
