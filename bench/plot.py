"""Pictures as SVG, by hand: of the engine row tokens a second against the batch and shares of the roof; of an audit where the time of a
token goes, by part and by layer.

    plot.py RESULT.json PICTURE.svg      a result of run_bench.py, or what `quire audit --json` printed
"""
import json
import math
import sys
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 300, 62, 16, 40, 42
QUIRE, PEER, INK, FAINT = "#0b6e4f", "#9a5b13", "#222222", "#d9d9d9"


class Canvas:
    def __init__(self, width, height):
        self.parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
                      f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12" fill="{INK}">',
                      f'<rect width="{width}" height="{height}" fill="#ffffff"/>']

    def text(self, x, y, words, anchor="middle", **style):
        more = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in style.items())
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(str(words))}</text>')

    def line(self, x1, y1, x2, y2, color=INK, width=1.0):
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" '
                          f'stroke-width="{width}"/>')

    def path(self, points, color):
        self.parts.append(f'<polyline fill="none" stroke="{color}" stroke-width="2" points="' +
                          " ".join(f"{x:.1f},{y:.1f}" for x, y in points) + '"/>')

    def dot(self, x, y, color):
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{color}"/>')

    def bar(self, x, y, width, height, color):
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{color}"/>')

    def close(self):
        return "\n".join([*self.parts, "</svg>", ""])


def log_ticks(least, most):
    """1, 2 and 5 times powers of ten that enclose both."""
    steps = [m * 10 ** e for e in range(-1, 7) for m in (1, 2, 5)]
    first = max(s for s in steps if s <= least)
    last = min(s for s in steps if s >= most)
    return [s for s in steps if first <= s <= last]


def by_batch(lines, who):
    """[(batch, spread)] of the decode lines of one model."""
    return [(int(line["what"].split()[-1]), line[who]) for line in lines
            if line[who] and line["what"].split()[-2:-1] == ["decode"]]


def batch_panel(canvas, x0, y0, model, lines):
    curves = {"quire": (by_batch(lines, "quire"), QUIRE), "libllama": (by_batch(lines, "peer"), PEER)}
    every = [s[key] for points, _ in curves.values() for _, s in points for key in ("least", "most")]
    ticks = log_ticks(min(every), max(every))
    batches = [b for b, _ in curves["quire"][0]]
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x_of(batch):
        return x0 + LEFT + wide * (math.log2(batch / batches[0]) / max(1e-9, math.log2(batches[-1] / batches[0])))

    def y_of(tps):
        return y0 + TOP + high * (1 - math.log(tps / ticks[0]) / math.log(ticks[-1] / ticks[0]))

    canvas.text(x0 + LEFT, y0 + 20, f"{model}: decode, tokens/s against sequences", "start", font_weight="bold")
    for tick in ticks:
        canvas.line(x0 + LEFT, y_of(tick), x0 + LEFT + wide, y_of(tick), FAINT)
        canvas.text(x0 + LEFT - 6, y_of(tick) + 4, f"{tick:g}", "end")
    for batch in batches:
        canvas.text(x_of(batch), y0 + HEIGHT - BOTTOM + 18, batch)
    canvas.text(x0 + LEFT + wide / 2, y0 + HEIGHT - 8, "sequences at once")
    for name, (points, color) in curves.items():
        if not points:
            continue
        canvas.path([(x_of(b), y_of(s["median"])) for b, s in points], color)
        for b, s in points:
            canvas.line(x_of(b), y_of(s["least"]), x_of(b), y_of(s["most"]), color)
            canvas.dot(x_of(b), y_of(s["median"]), color)
        canvas.text(x_of(points[-1][0]), y_of(points[-1][1]["median"]) - 9, name, "end", fill=color)


def roof_panel(canvas, x0, y0, model, lines):
    shown = [line for line in lines if line["roof"]]
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    top = max(1.0, *(line["roof"]["most"] for line in shown))
    canvas.text(x0 + LEFT, y0 + 20, f"{model}: share of the measured roof", "start", font_weight="bold")
    for share in (0, 0.25, 0.5, 0.75, 1.0):
        y = y0 + TOP + high * (1 - share / top)
        canvas.line(x0 + LEFT, y, x0 + LEFT + wide, y, INK if share in (0, 1) else FAINT)
        canvas.text(x0 + LEFT - 6, y + 4, f"{100 * share:.0f} %", "end")
    step = wide / len(shown)
    for i, line in enumerate(shown):
        share = line["roof"]["median"]
        by_bandwidth = line["bandwidth"] and line["bandwidth"]["median"] >= share
        x, y = x0 + LEFT + i * step, y0 + TOP + high * (1 - share / top)
        canvas.bar(x + step * 0.2, y, step * 0.6, high * share / top, "#3b7ea1" if by_bandwidth else "#7a4988")
        canvas.text(x + step / 2, y - 5, f"{100 * share:.0f}")
        canvas.text(x + step / 2, y0 + HEIGHT - BOTTOM + 18, " ".join(line["what"].split()[-2:]), font_size=10)
    canvas.text(x0 + LEFT + wide / 2, y0 + HEIGHT - 8, "blue: read bandwidth is the nearer roof; violet: int8 rate", font_size=11)


def picture(result):
    """SVG text, or None when the engine row was not run."""
    rows = [row for row in result["rows"] if row["name"] == "engine" and row["lines"]]
    if not rows:
        return None
    models = list(rows[0]["raw"])
    canvas = Canvas(2 * WIDTH, HEIGHT * len(models))
    for i, model in enumerate(models):
        lines = [line for line in rows[0]["lines"] if line["what"].startswith(model + " ") and line["roof"]]
        batch_panel(canvas, 0, i * HEIGHT, model, lines)
        roof_panel(canvas, WIDTH, i * HEIGHT, model, lines)
    return canvas.close()


# ---- audits ----

PARTS = {  # key: (words, color); together what the bars show, in this order
    "embedding": ("embedding", "#b8b8b8"), "norm": ("norms", "#8fa3ad"), "quantise": ("rounding to 8 bits", "#c9b458"),
    "qkv": ("Q, K, V", "#0b6e4f"), "qk_norm": ("QK norm", "#5aa786"), "rope": ("RoPE", "#9fd0b8"), "store": ("to pages", "#cfe6da"),
    "qk": ("Q K\u1d40", "#9a5b13"), "softmax": ("softmax", "#cf8a3a"), "av": ("A V", "#e8bd86"), "attention": ("attention", "#9a5b13"),
    "output": ("output", "#7a4988"), "mlp": ("MLP", "#3b7ea1"), "head": ("head", "#a33b3b"), "wait": ("waiting", "#e4e4e4"),
}
AUDIT_WIDTH, BAR_LEFT, BAR_WIDTH, BAR_HEIGHT = 920, 130, 640, 26


def stacked(canvas, x, y, scale, height, times):
    for key, us in times.items():
        canvas.bar(x, y, us * scale, height, PARTS[key][1])
        x += us * scale
    return x


def audit_picture(audit):
    """One bar for each run; below, one for each layer of the warm ones."""
    runs, layers = audit["runs"], audit["layers"]
    row = max(6, min(12, 360 // layers))
    shown = [key for key in PARTS if any(key in run["parts"] for run in runs)]
    top, below = 64, 64 + len(runs) * (BAR_HEIGHT + 12) + 70
    canvas = Canvas(AUDIT_WIDTH, below + 40 + layers * row + 40)
    canvas.text(20, 24, f'{audit["audit"]}: microseconds a token, {audit["workers"]} workers, a prompt of {audit["prompt"]} tokens, '
                        f'decode of {audit["batch"]}', "start", font_weight="bold")
    canvas.text(20, 44, "prefill and decode each to a scale of its own; the figure behind a bar is the whole token", "start", font_size=11)
    for kind in ("prefill", "decode"):  # a scale of its own for each: a token of decode costs a multiple
        scale = BAR_WIDTH / max(run["us_per_token"] for run in runs if run["name"] == kind)
        for i, run in enumerate(runs):
            if run["name"] != kind:
                continue
            y = top + i * (BAR_HEIGHT + 12)
            times = {key: part["us_per_token"] for key, part in sorted(run["parts"].items(), key=lambda p: shown.index(p[0]))}
            canvas.text(BAR_LEFT - 8, y + 17, f'{kind}, {run["caches"]}', "end")
            end = stacked(canvas, BAR_LEFT, y, scale, BAR_HEIGHT, times)
            canvas.text(end + 6, y + 17, f'{run["us_per_token"]:.1f}', "start")
    x, y = BAR_LEFT, below - 58
    for key in shown:
        words = PARTS[key][0]
        if x + 30 + 7 * len(words) > AUDIT_WIDTH - 20:
            x, y = BAR_LEFT, y + 18
        canvas.bar(x, y, 11, 11, PARTS[key][1])
        canvas.text(x + 16, y + 10, words, "start", font_size=11)
        x += 34 + 6.5 * len(words)
    half = (AUDIT_WIDTH - 100) / 2
    for column, kind in enumerate(("prefill", "decode")):
        run = next(r for r in runs if r["name"] == kind and r["caches"] == "warm")
        x0 = 50 + column * (half + 30)
        canvas.text(x0, below + 14, f"{kind}, warm, by layer", "start", font_weight="bold")
        longest = max(sum(times.values()) for times in run["layers"])
        for layer, times in enumerate(run["layers"]):
            y = below + 28 + layer * row
            ordered = {key: times[key] for key in shown if key in times}
            if layer % 2 == 0:
                canvas.text(x0 - 6, y + row - 1, layer, "end", font_size=9)
            stacked(canvas, x0, y, (half - 20) / longest, row - 1, ordered)
        canvas.text(x0, below + 46 + layers * row, f"the longest bar is {longest:.1f} microseconds a token", "start", font_size=11)
    return canvas.close()


if __name__ == "__main__":
    with open(sys.argv[1]) as source, open(sys.argv[2], "w") as target:
        result = json.load(source)
        target.write((audit_picture if "audit" in result else picture)(result) or "")
