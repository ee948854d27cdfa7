/*
 * api: how the page talks to its server: one way to ask, one kind of error, one reader of event streams.
 */
import { apiKey } from "./settings.js";

/* Its message is a sentence for a person. status 0: the server was not reached, or left in the middle. */
export class ServerError extends Error {
    constructor(message, status) {
        super(asSentence(message));
        this.status = status;
    }
}

/* Capital and full stop, unless it begins with the name of a field. */
function asSentence(text) {
    const words = /^[a-z]+[\s,]/.test(text) ? text[0].toUpperCase() + text.slice(1) : text;
    return /[.!?]$/.test(words) ? words : `${words}.`;
}

export function errorOf(object, status) {
    const message = object && object.error && object.error.message;
    return new ServerError(message || `The server answered with status ${status} and gave no reason`, status);
}

/* The response, once its status is good. Throws ServerError, or AbortError when `signal` fired. */
export async function ask(path, { body, signal } = {}) {
    const headers = {};
    if (apiKey())
        headers.Authorization = `Bearer ${apiKey()}`;
    if (body)
        headers["Content-Type"] = "application/json";
    let response;
    try {
        response = await fetch(path, { method: body ? "POST" : "GET", headers, body, signal, cache: "no-store" });
    } catch (error) {
        if (error.name === "AbortError")
            throw error;
        throw new ServerError("The server cannot be reached. Is it still running?", 0);
    }
    if (!response.ok)
        throw errorOf(await response.json().catch(() => null), response.status);
    return response;
}

/* A line ends with LF, CR LF or CR; a CR at the very end waits for what follows it. */
const LINE_END = /\r\n|\n|\r(?!\n|$)/;

/* Yields the data of each server-sent event of a response; comments and an event that was cut off are dropped. */
export async function* eventData(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "", data = [];
    try {
        for (;;) {
            const { value, done } = await reader.read();
            if (done && rest === "\r" && data.length > 0) /* the last CR has waited for nothing: it closes an event */
                yield data.join("\n");
            if (done)
                return;
            const lines = (rest + value).split(LINE_END);
            rest = lines.pop();
            for (const line of lines) {
                if (line === "" && data.length > 0) {
                    yield data.join("\n");
                    data = [];
                } else if (line.startsWith("data:")) {
                    data.push(line.slice(line[5] === " " ? 6 : 5));
                }
            }
        }
    } finally {
        reader.cancel().catch(() => {}); /* a reader that leaves early tells the server so */
    }
}

function parseChunk(data) {
    try {
        return JSON.parse(data);
    } catch {
        throw new ServerError("The server sent a piece of the answer that cannot be read", 0);
    }
}

/*
 * Yields the chunks of a streamed completion. A stream that ends without [DONE], and an error inside it, throw
 * ServerError: an answer is never taken for complete that is not.
 */
export async function* completionChunks(body, signal) {
    const response = await ask("v1/chat/completions", { body, signal });
    try {
        for await (const data of eventData(response)) {
            if (data === "[DONE]")
                return;
            const chunk = parseChunk(data);
            if (chunk.error)
                throw errorOf(chunk, response.status);
            yield chunk;
        }
    } catch (error) {
        if (error.name === "AbortError" || error instanceof ServerError)
            throw error;
        throw new ServerError("The connection broke before the answer was complete", 0);
    }
    throw new ServerError("The connection ended before the answer was complete", 0);
}
