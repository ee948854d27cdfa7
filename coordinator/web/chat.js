/*
 * chat: a conversation, one answer at a time.
 *
 * `turns` is the conversation: {role: "user", content} and {role: "assistant", content, stats, note, error}, in turn.
 * The page shows what it holds. It lasts as long as the tab.
 */
import { completionChunks } from "./api.js";
import { showMarkdown } from "./markdown.js";
import { load, requestBody, store, systemPrompt } from "./settings.js";

const CONVERSATION = "quire.conversation";

const list = document.getElementById("turns");
const welcome = document.getElementById("welcome");
const prompt = document.getElementById("prompt");
const sendButton = document.getElementById("send");
const stopButton = document.getElementById("stop");
const status = document.getElementById("chat-status");

let turns = [];
let running = null; /* AbortController of the answer being streamed */

/* ---- what goes to the server ---- */

/* A question whose answer failed before its first word is left out: templates want questions and answers in turn. */
function messages() {
    const sent = systemPrompt() ? [{ role: "system", content: systemPrompt() }] : [];
    for (let i = 0; i + 1 < turns.length; i += 2) {
        const [question, answer] = [turns[i], turns[i + 1]], last = i + 2 === turns.length;
        if (!last && !answer.content)
            continue;
        sent.push({ role: "user", content: question.content });
        if (!last)
            sent.push({ role: "assistant", content: answer.content });
    }
    return sent;
}

/* ---- what an answer cost ---- */

function statsSentence(stats) {
    if (!stats)
        return "";
    const parts = [];
    if (stats.firstMs !== null)
        parts.push(`first token ${(stats.firstMs / 1000).toFixed(2)} s`);
    if (stats.usage) {
        const { completion_tokens: made, prompt_tokens: read, prompt_tokens_details: details } = stats.usage;
        if (made > 1 && stats.lastMs > stats.firstMs)
            parts.push(`${(1000 * (made - 1) / (stats.lastMs - stats.firstMs)).toFixed(1)} tokens/s`);
        parts.push(made === 1 ? "1 token" : `${made} tokens`);
        if (details && details.cached_tokens !== undefined)
            parts.push(`${details.cached_tokens} of ${read} prompt tokens cached`);
    }
    return parts.join("  ·  ");
}

const NOTES = { length: "Ended at the limit of tokens.", content_filter: "Ended by a filter." };

/* ---- the page ---- */

const views = new WeakMap(); /* turn -> its elements */

function button(label, act) {
    const made = document.createElement("button");
    made.type = "button";
    made.className = "quiet";
    made.textContent = label;
    made.addEventListener("click", act);
    return made;
}

function part(parent, name, className) {
    const made = document.createElement(name);
    made.className = className;
    parent.append(made);
    return made;
}

function viewOf(turn) {
    if (views.has(turn))
        return views.get(turn);
    const root = part(list, "article", `turn ${turn.role}`);
    root.setAttribute("aria-label", turn.role === "user" ? "You" : "Answer");
    const view = { root, text: part(root, "div", "text") };
    if (turn.role === "assistant") {
        view.error = part(root, "p", "error");
        view.error.setAttribute("role", "alert");
        const foot = part(root, "footer", "foot");
        view.note = part(foot, "span", "note");
        view.stats = part(foot, "span", "stats");
        view.tools = part(foot, "span", "tools");
    }
    views.set(turn, view);
    return view;
}

function showTurn(turn) {
    const view = viewOf(turn);
    if (turn.role === "user") {
        view.text.textContent = turn.content;
        return;
    }
    const streaming = running !== null && turn === turns.at(-1);
    view.root.classList.toggle("streaming", streaming);
    view.root.classList.toggle("waiting", streaming && !turn.content);
    view.root.setAttribute("aria-busy", String(streaming));
    showMarkdown(view.text, turn.content);
    view.error.textContent = turn.error || "";
    view.note.textContent = turn.note || "";
    view.stats.textContent = streaming ? "" : statsSentence(turn.stats);
    view.tools.replaceChildren();
    if (!streaming && turn === turns.at(-1))
        view.tools.append(button(turn.error ? "Try again" : "Regenerate", regenerate));
}

function showAll() {
    welcome.hidden = turns.length > 0;
    turns.forEach(showTurn);
    sendButton.hidden = running !== null;
    stopButton.hidden = running === null;
}

/* Follows the answer unless the reader has scrolled up. */
function keepingEnd(change) {
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 48;
    change();
    if (atEnd)
        list.scrollTop = list.scrollHeight;
}

function growPrompt() {
    prompt.style.height = "auto";
    prompt.style.height = `${prompt.scrollHeight}px`;
}

/* ---- one answer ---- */

/* Takes chunks into `turn` until the stream ends; the page is drawn once a frame. */
async function receive(turn, signal) {
    const began = performance.now();
    let drawn = true;
    turn.stats = { firstMs: null, lastMs: null, usage: null };
    const draw = () => {
        drawn = true;
        keepingEnd(() => showTurn(turn));
    };
    const request = { model: "default", messages: messages(), stream: true, stream_options: { include_usage: true } };
    for await (const chunk of completionChunks(requestBody(request), signal)) {
        if (chunk.usage)
            turn.stats.usage = chunk.usage;
        const choice = chunk.choices && chunk.choices[0];
        if (!choice)
            continue;
        if (choice.finish_reason)
            turn.note = NOTES[choice.finish_reason] || "";
        if (choice.delta && choice.delta.content) {
            turn.content += choice.delta.content;
            turn.stats.lastMs = performance.now() - began;
            turn.stats.firstMs ??= turn.stats.lastMs;
            if (drawn)
                requestAnimationFrame(draw);
            drawn = false;
        }
    }
}

async function answer() {
    const turn = { role: "assistant", content: "" };
    const mine = new AbortController();
    running = mine;
    turns.push(turn);
    showAll();
    list.scrollTop = list.scrollHeight;
    status.textContent = "The answer is being written.";
    try {
        await receive(turn, mine.signal);
        status.textContent = "The answer is complete.";
    } catch (error) {
        if (error.name === "AbortError")
            turn.note = "You stopped it.";
        else
            turn.error = error.message;
        status.textContent = turn.note || "";
    }
    if (running !== mine)
        return; /* another conversation has begun */
    running = null;
    keepingEnd(showAll);
    store("sessionStorage", CONVERSATION, turns);
}

function send(text) {
    if (running || !text.trim())
        return;
    prompt.value = "";
    growPrompt();
    turns.push({ role: "user", content: text.trim() });
    answer();
}

function stop() {
    if (running)
        running.abort();
}

function dropLastAnswer() {
    viewOf(turns.pop()).root.remove();
}

function regenerate() {
    if (running)
        return;
    dropLastAnswer();
    answer();
    prompt.focus();
}

function newChat() {
    stop();
    running = null;
    for (const turn of turns)
        viewOf(turn).root.remove();
    turns = [];
    store("sessionStorage", CONVERSATION, turns);
    showAll();
    prompt.focus();
}

function recall() {
    const kept = load("sessionStorage", CONVERSATION);
    if (Array.isArray(kept) && kept.every((turn) => turn && typeof turn.content === "string"))
        turns = kept;
}

export function startChat() {
    recall();
    showAll();
    list.scrollTop = list.scrollHeight;
    document.getElementById("composer").addEventListener("submit", (event) => {
        event.preventDefault();
        send(prompt.value);
    });
    prompt.addEventListener("input", growPrompt);
    prompt.addEventListener("keydown", (event) => {
        if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
            event.preventDefault();
            send(prompt.value);
        }
    });
    document.addEventListener("keydown", (event) => {
        if (event.key === "Escape" && !document.querySelector("dialog[open]"))
            stop();
    });
    stopButton.addEventListener("click", stop);
    document.getElementById("new-chat").addEventListener("click", newChat);
    for (const example of welcome.querySelectorAll("button"))
        example.addEventListener("click", () => send(example.textContent));
}
