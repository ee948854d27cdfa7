/* app: starts the parts of the page; on a narrow screen it shows one of them at a time. */
import { startChat } from "./chat.js";
import { startLive } from "./live.js";
import { startSettings } from "./settings.js";

const buttons = document.querySelectorAll("[data-show]");

function showView(name) {
    document.body.dataset.view = name;
    for (const button of buttons)
        button.setAttribute("aria-pressed", String(button.dataset.show === name));
}

for (const button of buttons)
    button.addEventListener("click", () => showView(button.dataset.show));

startSettings();
startChat();
startLive();
