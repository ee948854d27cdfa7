/*
 * live: what the server is doing, from GET /quire/state twice a second while the page can be seen.
 *
 * The next question goes out only when the last one has been answered: a slow server is asked less often.
 */
import { ask } from "./api.js";
import { countKinds, PageMap } from "./page_map.js";
import { openSettings } from "./settings.js";

const POLL_MS = 500, RETRY_MS = 2000;
const RATE_WINDOW_MS = 2500; /* tokens/s is counted over this long */
const SPARK_MS = 60000;
const FRESH_MS = 15000; /* how long a restarted worker stands out */
const MOST_EVENTS = 4;

const at = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const map = new PageMap(at("page-map"));

let samples = []; /* {ms, generated}, the last minute */
let workers = new Map(); /* id -> {pid, lost, freshUntil} as last seen; the pid outlives its process */
let timer = 0;

/* ---- words ---- */

function duration(seconds) {
    const whole = Math.floor(seconds), minutes = Math.floor(whole / 60), hours = Math.floor(minutes / 60);
    if (whole < 60)
        return `${whole} s`;
    if (minutes < 60)
        return `${minutes} min`;
    return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

function bytes(count) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    const power = count > 0 ? Math.min(Math.floor(Math.log2(count) / 10), units.length - 1) : 0;
    const value = count / 1024 ** power;
    return `${value < 10 && power > 0 ? value.toFixed(1) : Math.round(value)} ${units[power]}`;
}

const counted = (count, one, many) => `${number.format(count)} ${count === 1 ? one : many}`;

function setText(id, text) {
    const element = at(id);
    if (element.textContent !== text) /* what did not change is not announced, and a selection in it stays */
        element.textContent = text;
}

/* ---- tables ---- */

/* One row an item, kept as long as the item is there. cells: [text, class] each, the id first. */
function showRows(body, items, cellsOf, rowOf) {
    const rows = new Map([...body.rows].map((row) => [row.dataset.id, row]));
    items.forEach((item, i) => {
        const id = String(item.id), row = rows.get(id) || document.createElement("tr");
        rows.delete(id);
        row.dataset.id = id;
        cellsOf(item).forEach(([text, className], column) => {
            const cell = row.cells[column] || row.insertCell();
            cell.className = className || "";
            if (cell.textContent !== text)
                cell.textContent = text;
        });
        if (rowOf)
            rowOf(row, item);
        if (body.rows[i] !== row)
            body.insertBefore(row, body.rows[i] || null);
    });
    for (const row of rows.values())
        row.remove();
}

/* "chatcmpl-0f3c…": what all have in common says nothing. */
function shortId(id) {
    const tail = String(id).slice(String(id).indexOf("-") + 1);
    return tail.length > 10 ? `${tail.slice(0, 10)}…` : tail;
}

function showSessions(sessions, waiting) {
    showRows(at("sessions"), sessions, (session) => [
        [shortId(session.id), "id"],
        [session.state, `state ${session.state}`],
        [number.format(session.tokens), "n"],
        [number.format(session.pages), "n"],
        [String(session.group), "n"],
    ], (row, session) => {
        row.title = session.id;
    });
    const queue = waiting > 0 ? `, ${number.format(waiting)} waiting` : "";
    setText("sessions-count", `${number.format(sessions.length)} running${queue}`);
    at("no-sessions").hidden = sessions.length > 0;
    at("sessions").closest("table").hidden = sessions.length === 0;
}

/* ---- workers ---- */

function addEvent(words) {
    const item = document.createElement("li"), time = document.createElement("time");
    time.textContent = new Date().toLocaleTimeString("en-GB");
    item.append(time, ` ${words}`);
    at("events").prepend(item);
    while (at("events").children.length > MOST_EVENTS)
        at("events").lastChild.remove();
}

/* What happened to a worker since the last look; a fault may begin and end between two. */
function noteWorker(worker, now) {
    const before = workers.get(worker.id);
    if (!before)
        return { pid: worker.pid, lost: worker.state === "lost", freshUntil: 0 };
    const replaced = worker.pid > 0 && before.pid > 0 && worker.pid !== before.pid;
    const lost = worker.state === "lost";
    if (replaced)
        addEvent(before.lost ? `Worker ${worker.id} is back: pid ${worker.pid} took its place.` :
            `Worker ${worker.id} was lost (pid ${before.pid}); pid ${worker.pid} took its place.`);
    else if (lost && !before.lost)
        addEvent(`Worker ${worker.id} was lost (pid ${before.pid}).`);
    return { pid: worker.pid || before.pid, lost, freshUntil: replaced ? now + FRESH_MS : before.freshUntil };
}

function showWorkers(list, spares, now) {
    workers = new Map(list.map((worker) => [worker.id, noteWorker(worker, now)]));
    const isFresh = (worker) => workers.get(worker.id).freshUntil > now;
    showRows(at("workers"), list, (worker) => [
        [String(worker.id), "id"],
        [isFresh(worker) && worker.state === "ready" ? "ready again" : worker.state, `state ${worker.state}`],
        [String(worker.pid), "n"],
        [String(worker.cpu), "n"],
        [String(worker.node), "n"],
        [String(worker.group), "n"],
        [String(worker.restarts), worker.restarts > 0 ? "n restarted" : "n"],
    ], (row, worker) => row.classList.toggle("fresh", isFresh(worker)));
    const standBy = spares.length > 0 ? `, ${counted(spares.length, "spare", "spares")}` : "";
    setText("spares", list.length > 0 ? `${number.format(list.length)}${standBy}` : "");
    at("spares").title = spares.map((spare) => `pid ${spare.pid}`).join(", ");
}

/* ---- pages ---- */

function showPages(pages) {
    const kinds = countKinds(pages);
    map.show(pages);
    for (const name of ["shared", "used", "cached", "free"])
        setText(`pages-${name}`, number.format(pages[name]));
    const classes = pages.classes ?? [pages];
    const sizes = classes.map((of) => `${number.format(of.total)} of ${bytes(of.page_bytes)}`).join(" and ");
    setText("page-size", `${sizes}, ${pages.page_tokens} tokens each`);
    setText("map-scale", map.perCell > 1 ? `one cell: ${map.perCell} pages` : "one cell: one page");
    at("page-map").setAttribute("aria-label", `${counted(pages.total, "page", "pages")}: ${pages.used} in use, ` +
        `${kinds.shared} of these shared; ${pages.cached} cached; ${pages.free} free.`);
}

/* ---- tokens ---- */

/* Tokens a second between the newest sample and the oldest of the window. */
function rateAt(index) {
    const newest = samples[index];
    let oldest = index;
    while (oldest > 0 && newest.ms - samples[oldest].ms < RATE_WINDOW_MS)
        oldest--;
    const ms = newest.ms - samples[oldest].ms;
    return ms > 0 ? 1000 * (newest.generated - samples[oldest].generated) / ms : 0;
}

function showTokens(tokens, now) {
    if (samples.length > 0 && tokens.generated < samples.at(-1).generated)
        samples = []; /* a new coordinator counts from zero */
    samples.push({ ms: now, generated: tokens.generated });
    while (now - samples[0].ms > SPARK_MS + RATE_WINDOW_MS)
        samples.shift();
    const rates = samples.map((_, i) => rateAt(i));
    showSpark(rates, now);
    const rate = rates.at(-1);
    setText("rate", rate < 10 && rate > 0 ? rate.toFixed(1) : number.format(Math.round(rate)));
    for (const name of ["generated", "prefilled", "reused", "recomputed"])
        setText(name, number.format(tokens[name]));
}

function showSpark(rates, now) {
    const most = Math.max(...rates, 1);
    const points = rates.map((rate, i) => [120 - 120 * (now - samples[i].ms) / SPARK_MS, 31 - 29 * rate / most])
        .map(([x, y]) => `${x.toFixed(2)},${y.toFixed(2)}`);
    at("spark").querySelector("polyline").setAttribute("points", points.join(" "));
    const [first, last] = [points[0], points.at(-1)].map((point) => point.split(",")[0]);
    at("spark").querySelector("path").setAttribute("d", `M${first},32L${points.join("L")}L${last},32Z`);
}

/* ---- the whole ---- */

function showHealth(name, words, notice) {
    at("health").dataset.health = name;
    setText("health-text", words);
    at("notice").hidden = !notice;
    setText("notice-text", notice || "");
    at("live").classList.toggle("stale", name !== "ready");
}

function showLoading(loading) {
    at("loading").hidden = !loading;
    if (loading && loading.total > 0)
        at("loading").value = loading.done / loading.total;
}

/* The state of a server that does not serve yet has only what it knows by then. */
function showState(state) {
    const now = performance.now();
    if (state.model) {
        setText("model", state.model);
        document.title = `${state.model} · quire`;
    }
    if (state.pages)
        showPages(state.pages);
    if (state.tokens)
        showTokens(state.tokens, now);
    showSessions(state.sessions || [], state.waiting || 0);
    showWorkers(state.workers || [], state.spares || [], now);
    setText("steps", number.format(state.steps || 0));
    setText("uptime", duration(state.uptime_s || 0));
}

/* Why GET /health is not 200, as a sentence; null: it is. */
async function reasonNotReady() {
    try {
        await ask("health");
        return null;
    } catch (error) {
        return error.message;
    }
}

async function look() {
    const asked = ask("quire/state").then((response) => response.json());
    const [state, reason] = await Promise.all([asked, reasonNotReady()]);
    showState(state);
    showLoading(state.loading);
    at("notice-settings").hidden = true;
    if (!reason)
        showHealth("ready", "ready", null);
    else
        showHealth("busy", state.loading ? "loading" : "not ready", reason);
}

function showFailure(error) {
    showLoading(null);
    at("notice-settings").hidden = error.status !== 401;
    if (error.status === 401)
        showHealth("locked", "locked", error.message);
    else if (error.status === 0)
        showHealth("away", "out of reach", error.message);
    else
        showHealth("busy", "not ready", error.message);
}

async function poll() {
    let wait = POLL_MS;
    try {
        await look();
    } catch (error) {
        showFailure(error);
        wait = RETRY_MS;
    }
    timer = document.hidden ? 0 : setTimeout(poll, wait);
}

export function startLive() {
    at("notice-settings").addEventListener("click", () => openSettings("api_key"));
    document.addEventListener("visibilitychange", () => {
        if (!document.hidden && timer === 0)
            timer = setTimeout(poll, 0);
    });
    timer = setTimeout(poll, 0);
}
