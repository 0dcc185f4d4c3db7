// ECharts, with only what the page uses, and one way to put a chart on it.

import { LineChart, ScatterChart } from "echarts/charts";
import { GridComponent, MarkAreaComponent, MarkLineComponent, TooltipComponent } from "echarts/components";
import * as echarts from "echarts/core";
import type { EChartsCoreOption } from "echarts/core";
import { CanvasRenderer } from "echarts/renderers";
import { h } from "./dom";
import { plain } from "./format";
import { themed, tokens, type Tokens } from "./theme";

echarts.use([LineChart, ScatterChart, GridComponent, MarkAreaComponent, MarkLineComponent, TooltipComponent, CanvasRenderer]);

export interface Drawn {
  box: HTMLElement;
  update: (build: (tokens: Tokens) => object, label: string) => void;
  /** Hear of a drag over the picture with a mouse: from where to where on the first x axis. */
  drag: (done: (from: number, to: number) => void) => void;
}

export const FONT = '"Inter", "Segoe UI", "Helvetica Neue", Arial, sans-serif';

let instances: echarts.ECharts[] = [];

/** Give back what the charts on the page hold: it is about to be built anew. */
export function disposeCharts(): void {
  for (const instance of instances) instance.dispose();
  instances = [];
}

/** An empty place of this height, in which a chart is drawn as soon as it is told what. */
export function chart(height: number, name: string): Drawn {
  const box = h("div", { class: "chart", role: "img", "data-chart": name });
  box.style.height = `${height}px`;
  let instance: echarts.ECharts | null = null;
  let build: ((tokens: Tokens) => object) | null = null;
  const draw = (look: Tokens) => {
    if (!instance || !build || instance.isDisposed()) return;
    instance.setOption({ ...base(look), ...build(look) }, { notMerge: true });
    box.dataset.drawn = "true";
  };
  new ResizeObserver(() => {
    if (!box.clientWidth || instance?.isDisposed()) return;
    if (instance) instance.resize();
    else {
      instance = echarts.init(box, null, { renderer: "canvas" });
      instances.push(instance);
      themed(draw);
    }
  }).observe(box);
  return {
    box,
    update(next, label) {
      build = next;
      box.setAttribute("aria-label", label);
      if (instance) draw(tokens());
    },
    drag(done) {
      dragged(box, (x) => {
        const at = instance?.convertFromPixel({ xAxisIndex: 0 }, x);
        return typeof at === "number" && Number.isFinite(at) ? at : null;
      }, done);
    },
  };
}

const LEAST_DRAG = 8; // pixels; less is a click

/** A drag with a mouse across `box`, shown as a band; a finger's drag scrolls the page as ever. */
export function dragged(box: HTMLElement, value: (x: number) => number | null, done: (from: number, to: number) => void): void {
  const band = h("i", { class: "drag-band", "aria-hidden": "true", hidden: true });
  let start: number | null = null;
  const place = (event: PointerEvent) => event.clientX - box.getBoundingClientRect().left;
  box.addEventListener("pointerdown", (event) => {
    box.dataset.dragged = "";
    if (event.button === 0 && event.pointerType !== "touch" && value(place(event)) !== null) start = place(event);
  });
  const stop = () => {
    start = null;
    band.hidden = true;
  };
  box.addEventListener("pointermove", (event) => {
    if (start === null) return;
    if (!event.buttons) return stop(); // let go outside
    const x = Math.min(Math.max(place(event), 0), box.clientWidth);
    if (band.hidden && Math.abs(x - start) < LEAST_DRAG) return;
    if (band.hidden) {
      box.append(band); // ECharts has emptied the box since
      box.setPointerCapture(event.pointerId);
    }
    band.hidden = false;
    band.style.left = `${Math.min(x, start)}px`;
    band.style.width = `${Math.abs(x - start)}px`;
    getSelection()?.removeAllRanges();
  });
  box.addEventListener("pointerup", (event) => {
    if (start === null) return;
    const [a, b] = [value(start), value(Math.min(Math.max(place(event), 0), box.clientWidth))];
    const far = !band.hidden;
    stop();
    if (!far || a === null || b === null) return;
    box.dataset.dragged = "yes"; // the click that follows is none
    done(a, b);
  });
  box.addEventListener("pointercancel", stop);
}

function base(look: Tokens): EChartsCoreOption {
  return {
    animation: false,
    textStyle: { fontFamily: FONT, color: look.soft, fontSize: 12 },
    tooltip: {
      trigger: "axis",
      confine: true,
      backgroundColor: look.surface,
      borderColor: look.line,
      borderWidth: 1,
      padding: [8, 12],
      textStyle: { color: look.ink, fontSize: 12, fontFamily: FONT },
      extraCssText: "box-shadow:0 6px 24px rgba(0,0,0,.18);border-radius:10px;max-width:320px;white-space:normal;",
      axisPointer: { lineStyle: { color: look.faint, type: "solid", width: 1 }, z: 0 },
    },
  };
}

export function valueAxis(look: Tokens, extra: object = {}): object {
  return {
    type: "value",
    axisLine: { show: false },
    axisTick: { show: false },
    axisLabel: { color: look.soft, fontSize: 12, hideOverlap: true, formatter: (v: number) => short(v) },
    splitLine: { lineStyle: { color: look.line, width: 1 } },
    splitNumber: 4,
    nameTextStyle: { color: look.soft, fontSize: 12, fontFamily: FONT },
    ...extra,
  };
}

/** A log axis that ends near its data, not at the next power of ten. */
export function logAxis(look: Tokens, low: number | null, high: number | null): object {
  const [min, max] = [(low ?? 0.1) / 1.15, (high ?? 10) * 1.15];
  const label = { color: look.soft, fontSize: 12, showMinLabel: false, showMaxLabel: false, formatter: (v: number) => short(v) };
  return valueAxis(look, { type: "log", min, max, axisLabel: label, minorTick: { show: false } });
}

export function stepAxis(look: Tokens, low: number, high: number, extra: object = {}): object {
  return {
    ...valueAxis(look),
    min: low,
    max: Math.max(high, low + 1),
    splitLine: { show: false },
    axisLine: { show: true, lineStyle: { color: look.line }, onZero: false },
    axisLabel: {
      color: look.soft,
      fontSize: 12,
      hideOverlap: true,
      showMinLabel: true,
      formatter: (v: number) => (Number.isInteger(v) ? v.toLocaleString("en") : ""),
    },
    ...extra,
  };
}

function short(value: number): string {
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e-3 && size < 1e5 ? String(Number(value.toPrecision(6))) : plain(value, 1);
}

/** A tooltip as elements: ECharts' own strings would be read as markup. */
export function tip(title: string, lines: [string, string, string?][]): HTMLElement {
  return h(
    "div",
    { class: "tip" },
    h("b", {}, title),
    ...lines.map(([name, value, colour]) => {
      const dot = h("i", {});
      if (colour) dot.style.background = colour;
      return h("span", {}, colour ? dot : null, h("em", {}, name), h("strong", {}, value));
    }),
  );
}
