// The loss over the steps, with what guessing gives and where the findings begin.

import { chart, logAxis, stepAxis, tip, valueAxis } from "../charts";
import { h, panel, spread, table } from "../dom";
import { plain } from "../format";
import type { Tokens } from "../theme";
import type { LossView } from "../types";
import { zoomBar, type Shown, type Zoom } from "../zoom";

export function lossPanel(loss: LossView, zoom: Zoom): HTMLElement {
  const drawn = chart(300, "loss");
  const bar = zoomBar(zoom, "loss");
  const rows = spread(loss.steps.length, 40).map((i) => [String(loss.steps[i]), plain(loss.values[i], 4)]);
  const section = panel(
    "loss",
    "Loss",
    loss.summary,
    keys(loss),
    bar,
    drawn.box,
    table("Loss by step", ["Step", "Loss"], rows),
  );
  section.dataset.scale = loss.log ? "log" : "linear";
  section.dataset.chance = loss.chance === null ? "unknown" : String(loss.chance);
  section.dataset.marks = String(loss.marks.length);
  section.dataset.flat = loss.flat.map((f) => f.join("-")).join(" ");
  section.dataset.nonFinite = String(loss.non_finite);
  if (bar) drawn.drag((from, to) => zoom.to(Math.round(from), Math.round(to)));
  zoom.listen((shown) => {
    const part = within(loss, shown);
    const [low, high] = shown.steps ?? [part.steps[0] ?? 0, part.steps[part.steps.length - 1] ?? 1];
    section.dataset.points = String(part.steps.length);
    section.dataset.shown = `${low}-${high}`;
    const where = shown.steps ? `Steps ${low} to ${high} of ` : "";
    drawn.update((look) => option(part, look, low, high), `${where}${where ? "the loss" : "Loss"} over ${loss.recorded} steps. ${loss.summary}`);
  });
  return section;
}

/** The loss of the steps that are shown, with what is marked on them. */
function within(loss: LossView, shown: Shown): LossView {
  const part = shown.loss;
  if (!shown.steps) return loss;
  const [low, high] = shown.steps;
  const values = part.values.filter((v): v is number => v !== null);
  const [min, max] = [values.reduce((a, b) => Math.min(a, b), Infinity), values.reduce((a, b) => Math.max(a, b), -Infinity)];
  const chance = loss.chance !== null && min <= 2 * loss.chance && 0.5 * loss.chance <= max ? loss.chance : null; // far away it would flatten the rest
  return {
    ...loss, steps: part.steps, values: part.values, smooth: part.smooth, chance,
    min: values.length ? min : null, max: values.length ? max : null, log: loss.log && min > 0 && max / min > 20,
    non_finite_steps: loss.non_finite_steps.filter((s) => low <= s && s <= high),
    marks: loss.marks.filter((m) => low <= m.step && m.step <= high),
    flat: loss.flat.filter(([a, b]) => a < high && b > low).map(([a, b]): [number, number] => [Math.max(a, low), Math.min(b, high)]),
  };
}

function keys(loss: LossView): HTMLElement {
  const key = (name: string, text: string) => h("li", {}, h("i", { class: name }), text);
  const list = h("ul", { class: "keys" }, key("raw", "loss"));
  if (loss.smooth) list.append(key("median", "smoothed"));
  if (loss.chance !== null) list.append(key("guess", `best constant guess: ${plain(loss.chance, 4)}`));
  for (const [a, b] of loss.flat) list.append(key("flat", `flat from step ${a.toLocaleString("en")} to ${b.toLocaleString("en")}`));
  for (const mark of loss.marks) list.append(key(`mark mark-${mark.severity}`, `from step ${mark.step}: ${mark.label}`));
  if (loss.non_finite) list.append(key("mark mark-critical", `NaN or infinite at ${loss.non_finite} steps`));
  return list;
}

function option(loss: LossView, look: Tokens, low: number, high: number): object {
  const points = loss.steps.map((step, i) => [step, loss.values[i]]);
  const series: object[] = [
    {
      name: "loss",
      type: "line",
      data: points,
      showSymbol: points.length < 3,
      lineStyle: { width: loss.smooth ? 1 : 2, color: look.accent, opacity: loss.smooth ? 0.4 : 1 },
      itemStyle: { color: look.accent },
      markLine: markLine(loss, look),
      markArea: { silent: true, animation: false, itemStyle: { color: look.faint, opacity: 0.16 }, data: loss.flat.map(([a, b]) => [{ xAxis: a }, { xAxis: b }]) },
      z: 2,
    },
  ];
  if (loss.smooth) {
    series.push({
      name: "smoothed",
      type: "line",
      data: loss.smooth.steps.map((step, i) => [step, loss.smooth?.values[i]]),
      showSymbol: false,
      lineStyle: { width: 2.25, color: look.accent },
      itemStyle: { color: look.accent },
      z: 3,
    });
  }
  if (loss.non_finite_steps.length) series.push(notFinite(loss, look));
  return {
    grid: { left: 48, right: 20, top: 26, bottom: 46 },
    xAxis: stepAxis(look, low, high, { name: "step", nameLocation: "middle", nameGap: 28 }),
    yAxis: yAxis(loss, look),
    series,
    tooltip: {
      trigger: "axis",
      formatter: (items: { axisValue: number; data: [number, number]; seriesName: string; color: string }[]) =>
        tip(
          `step ${items[0]?.data[0] ?? ""}`,
          items.map((item) => [item.seriesName, plain(item.data[1], 4), look.accent]),
        ),
    },
  };
}

function yAxis(loss: LossView, look: Tokens): object {
  const values = [loss.min, loss.max, loss.chance].filter((v): v is number => v !== null);
  if (!values.length) return valueAxis(look);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  if (loss.log) return logAxis(look, low, high);
  // room around a flat line: noise of a percent must not fill the picture
  const room = Math.max((high - low) * 0.12, Math.abs(high) * 0.05, 1e-12);
  return valueAxis(look, { min: low >= 0 ? Math.max(low - room, 0) : low - room, max: high + room,
    axisLabel: { color: look.soft, fontSize: 12, showMinLabel: false, showMaxLabel: false,
      formatter: (v: number) => String(Number(v.toPrecision(4))) } });
}

function markLine(loss: LossView, look: Tokens): object {
  const colours: Record<string, string> = { critical: look.critical, warning: look.warning, note: look.note };
  const label = { fontSize: 12, color: look.soft, fontFamily: "inherit" };
  const data: object[] = [];
  if (loss.chance !== null) {
    data.push({
      yAxis: loss.chance,
      lineStyle: { color: look.soft, type: [5, 5], width: 1.25 },
      label: { show: false },
    });
  }
  const [low, high] = [loss.steps[0] ?? 0, loss.steps[loss.steps.length - 1] ?? 1];
  let named = -Infinity; // names that would lie over each other are left to the list above
  for (const mark of [...loss.marks].sort((a, b) => a.step - b.step)) {
    const first = mark.step - named > 0.1 * (high - low);
    if (first) named = mark.step;
    data.push({
      xAxis: mark.step,
      lineStyle: { color: colours[mark.severity] ?? look.note, type: "solid", width: 1.5 },
      label: {
        ...label,
        show: first,
        color: colours[mark.severity] ?? look.note,
        formatter: `\u25be step ${mark.step}`,
        position: "end",
        align: mark.step === loss.steps[0] ? "left" : "center",
      },
    });
  }
  return { silent: true, symbol: "none", animation: false, data };
}

function notFinite(loss: LossView, look: Tokens): object {
  const floor = loss.min ?? 0;
  return {
    name: "no finite loss",
    type: "scatter",
    symbol: "path://M0,0 L10,10 M10,0 L0,10",
    symbolSize: 9,
    data: loss.non_finite_steps.map((step) => [step, floor]),
    itemStyle: { color: look.critical, borderColor: look.critical, borderWidth: 2 },
    tooltip: { show: false },
    z: 5,
  };
}
