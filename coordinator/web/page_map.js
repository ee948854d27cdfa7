/*
 * page_map: the pages of keys and values as cells. A cell is one page as long as they all fit, else k pages.
 *
 * The server tells how many pages are in which state, not which ones: cells are sorted by state, and a cell of several
 * pages shows the first of them, so that a single page in use is never hidden among free ones.
 */

const KINDS = ["shared", "used", "cached", "retired", "free"];
const LARGEST = 20, SMALLEST = 7; /* from one cell to the next, CSS pixels */
const HIGHEST = 190;
const GLOW_MS = 700; /* how long a cell that has changed stands out */

/* How many pages are of each kind, each counted once. Retired: their session has ended, a step still names them. */
export function countKinds(pages) {
    const { total, free, used, cached } = pages;
    const shared = Math.min(pages.shared, used);
    return { shared, used: used - shared, cached, retired: Math.max(total - free - used - cached, 0), free };
}

function layout(total, width) {
    const capacity = (pitch) => Math.floor(width / pitch) * Math.floor(HIGHEST / pitch);
    const perCell = Math.max(Math.ceil(total / Math.max(capacity(SMALLEST), 1)), 1);
    const cells = Math.ceil(total / perCell);
    let pitch = LARGEST;
    while (pitch > SMALLEST && capacity(pitch) < cells)
        pitch--;
    const columns = Math.max(Math.floor(width / pitch), 1);
    return { perCell, cells, pitch, columns, rows: Math.ceil(cells / columns) };
}

/* The kind of each cell, as an index of KINDS. */
function cellKinds(pages, { perCell, cells }) {
    const counts = countKinds(pages);
    const kinds = new Uint8Array(cells);
    let kind = 0, end = counts[KINDS[0]];
    for (let cell = 0; cell < cells; cell++) {
        while (kind < KINDS.length - 1 && cell * perCell >= end)
            end += counts[KINDS[++kind]];
        kinds[cell] = kind;
    }
    return kinds;
}

export class PageMap {
    constructor(canvas) {
        this.canvas = canvas;
        this.pages = null;
        this.kinds = new Uint8Array(0);
        this.changedAt = new Float64Array(0);
        this.perCell = 1;
        this.drawing = false;
        this.still = matchMedia("(prefers-reduced-motion: reduce)");
        new ResizeObserver(() => this.update()).observe(canvas.parentElement);
        matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.update());
    }

    show(pages) {
        this.pages = pages;
        this.update();
    }

    update() {
        const width = this.canvas.parentElement.clientWidth;
        if (!this.pages || width === 0) /* 0: the other view is shown */
            return;
        this.place = layout(this.pages.total, width);
        this.perCell = this.place.perCell;
        this.fitCanvas(width);
        this.takeKinds(cellKinds(this.pages, this.place));
        this.colours = getComputedStyle(this.canvas);
        this.draw();
    }

    fitCanvas(width) {
        const scale = devicePixelRatio || 1, height = Math.max(this.place.rows * this.place.pitch, 1);
        const pixels = [Math.round(width * scale), Math.round(height * scale)];
        if (this.canvas.width === pixels[0] && this.canvas.height === pixels[1])
            return;
        [this.canvas.width, this.canvas.height] = pixels;
        this.canvas.style.height = `${height}px`;
    }

    takeKinds(kinds) {
        const now = performance.now(), same = kinds.length === this.kinds.length;
        if (!same)
            this.changedAt = new Float64Array(kinds.length).fill(-Infinity);
        else if (!this.still.matches)
            kinds.forEach((kind, i) => {
                if (kind !== this.kinds[i])
                    this.changedAt[i] = now;
            });
        this.kinds = kinds;
    }

    draw() {
        const scale = devicePixelRatio || 1, now = performance.now();
        const context = this.canvas.getContext("2d");
        context.setTransform(scale, 0, 0, scale, 0, 0);
        context.clearRect(0, 0, this.canvas.width, this.canvas.height);
        const colour = (name) => this.colours.getPropertyValue(`--page-${name}`).trim();
        const paint = { context, kinds: KINDS.map(colour), mark: colour("mark"), glow: colour("glow") };
        let glowing = false;
        for (let cell = 0; cell < this.kinds.length; cell++) {
            const glow = 1 - (now - this.changedAt[cell]) / GLOW_MS;
            this.drawCell(paint, cell, Math.max(glow, 0));
            glowing ||= glow > 0;
        }
        if (glowing && !this.drawing) {
            this.drawing = true;
            requestAnimationFrame(() => {
                this.drawing = false;
                this.draw();
            });
        }
    }

    drawCell({ context, kinds, mark, glow }, cell, glowShare) {
        const { pitch, columns } = this.place;
        const side = pitch - (pitch > 9 ? 3 : 2), x = (cell % columns) * pitch, y = Math.floor(cell / columns) * pitch;
        context.beginPath();
        context.roundRect(x, y, side, side, side / 5);
        context.fillStyle = kinds[this.kinds[cell]];
        context.fill();
        if (glowShare > 0) {
            context.globalAlpha = glowShare;
            context.fillStyle = glow;
            context.fill();
            context.globalAlpha = 1;
        }
        if (KINDS[this.kinds[cell]] === "shared") { /* a mark, for eyes that do not part the colours */
            context.fillStyle = mark;
            context.fillRect(x + side * 3 / 8, y + side / 4, side / 4, side / 2);
        }
    }
}
