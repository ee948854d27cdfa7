/*
 * settings: what the drawer holds, how long the browser keeps it, and what of it goes into a request.
 *
 * Sampling and the system prompt stay in localStorage; the API key lives as long as the tab, in sessionStorage. In a
 * browser that stores nothing everything lasts until the page is loaded again.
 */

const SETTINGS = "quire.settings";
const API_KEY = "quire.api_key";
const SAMPLING = ["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "max_tokens"];

const drawer = document.getElementById("settings");
const form = document.getElementById("settings-form");
const fields = form.elements;

export function load(storage, name) {
    try {
        return JSON.parse(window[storage].getItem(name));
    } catch {
        return null; /* storage is switched off, or another version of the page wrote it */
    }
}

export function store(storage, name, value) {
    try {
        window[storage].setItem(name, JSON.stringify(value));
    } catch {
        /* full, or switched off: it lasts as long as the page */
    }
}

export function apiKey() {
    return fields.api_key.value.trim();
}

export function systemPrompt() {
    return fields.system.value.trim();
}

/* A seed has 64 bits and a JavaScript number 53: whole numbers go out digit by digit. The server judges their range. */
function numberText(text) {
    return String(/^-?\d+$/.test(text) ? BigInt(text) : Number(text));
}

/* `request` and the filled sampling fields as one JSON object. */
export function requestBody(request) {
    const members = Object.entries(request).map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`);
    for (const name of SAMPLING)
        if (fields[name].value !== "")
            members.push(`${JSON.stringify(name)}:${numberText(fields[name].value)}`);
    return `{${members.join(",")}}`;
}

export function openSettings(field) {
    drawer.showModal();
    if (field)
        fields[field].focus();
}

function remember() {
    const kept = { system: fields.system.value };
    for (const name of SAMPLING)
        kept[name] = fields[name].value;
    store("localStorage", SETTINGS, kept);
    store("sessionStorage", API_KEY, fields.api_key.value);
}

function recall() {
    const kept = load("localStorage", SETTINGS) || {};
    for (const name of ["system", ...SAMPLING])
        fields[name].value = kept[name] || "";
    fields.api_key.value = load("sessionStorage", API_KEY) || "";
}

export function startSettings() {
    recall();
    form.addEventListener("input", remember);
    document.getElementById("open-settings").addEventListener("click", () => openSettings());
    document.getElementById("reset-settings").addEventListener("click", () => {
        for (const name of ["system", ...SAMPLING])
            fields[name].value = "";
        remember();
    });
    drawer.addEventListener("click", (event) => {
        if (event.target === drawer) /* the backdrop: the form covers the rest */
            drawer.close();
    });
}
