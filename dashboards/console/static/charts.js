// Charts: draws a machine's past with uPlot and lets the newest live values run on at the right end until their block has arrived.
// All numbers come from /api/v1; a gap stays a gap, and what the gate rejected is marked, not hidden.
"use strict";
(() => {
  const box = document.getElementById("charts");
  if (!box) return;
  const plan = JSON.parse(box.dataset.plan);
  const { serial, range, zone } = box.dataset;
  const live = range === "15m";
  const REFETCH_MS = live ? 4000 : 30000;
  const TAIL_MAX = 600; // live points kept at the right end
  const charts = [];
  const sync = uPlot.sync("icecap");
  let tail = [];
  let answer = null;

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const minus = (text) => text.replace("-", "\u2212");
  const text = (value, decimals) => (value === null || value === undefined ? "\u2013" : minus(value.toFixed(decimals)));
  const clock = (seconds, timeZone) =>
    new Intl.DateTimeFormat("en-GB", { timeZone, hour: "2-digit", minute: "2-digit", second: "2-digit" }).format(seconds * 1000);
  const day = (seconds, timeZone, options) => new Intl.DateTimeFormat("en-GB", { timeZone, ...options }).format(seconds * 1000);

  function tickLabels(_u, ticks, _axis, _space, step) {
    let before = "";
    return ticks.map((at) => {
      const date = day(at, zone, { day: "numeric", month: "short" });
      if (step >= 86400) return date;
      const time = day(at, zone, { hour: "2-digit", minute: "2-digit", ...(step < 60 ? { second: "2-digit" } : {}) });
      const line = range === "7d" && date !== before ? `${time}\n${date}` : time;
      before = date;
      return line;
    });
  }

  function options(group, width) {
    const curves = group.curves;
    const quiet = css("--chart-line");
    const ink = css("--ink-2");
    const font = `12px ${css("--sans")}`;
    const axis = { stroke: ink, font, grid: { stroke: quiet, width: 1 }, ticks: { show: false } };
    const series = [{}];
    const bands = [];
    for (const curve of curves) {
      const colour = css(`--chart-${curve.ink}`);
      const paths = curve.stepped ? uPlot.paths.stepped({ align: 1 }) : undefined;
      series.push({
        label: curve.label,
        stroke: colour,
        width: curve.ink === 0 ? 1.25 : 1.6,
        dash: curve.ink === 0 ? [5, 4] : undefined,
        paths,
        points: { show: false },
        spanGaps: false,
      });
    }
    for (const curve of curves) {
      if (curve.stepped) continue;
      const colour = css(`--chart-${curve.ink}`);
      const hi = series.push({ stroke: "transparent", width: 0, points: { show: false } }) - 1;
      const lo = series.push({ stroke: "transparent", width: 0, points: { show: false } }) - 1;
      bands.push({ series: [hi, lo], fill: `${colour}2e` });
    }
    return {
      width,
      height: group.large ? 260 : 150,
      padding: [group.state ? 26 : 10, 18, 0, 0],
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), zone),
      legend: { show: false },
      cursor: { sync: { key: sync.key }, points: { size: 7 }, drag: { x: false, y: false } },
      scales: { x: { time: true }, y: { range: (_u, lo, hi) => roomy(lo, hi) } },
      axes: [
        { ...axis, values: tickLabels, space: 70, size: range === "7d" ? 42 : 28 },
        { ...axis, size: 48, space: group.large ? 36 : 30, values: (_u, ticks, _i, _s, step) => ticks.map((at) => minus(at.toFixed(decimalsOf(step)))) },
      ],
      series,
      bands,
      hooks: { drawClear: [(u) => phases(u, group)], draw: [(u) => marks(u, group)], setCursor: [(u) => readOut(u, group)] },
    };
  }

  // 2.5 needs a decimal although it is more than 1: count the digits of the step itself.
  const decimalsOf = (step) => [0, 1, 2].find((digits) => Math.abs(step - Number(step.toFixed(digits))) < 1e-9) ?? 3;

  function roomy(lo, hi) {
    if (lo === null || hi === null || !Number.isFinite(lo) || !Number.isFinite(hi)) return [0, 1];
    const span = Math.max(hi - lo, Math.abs(hi) * 0.02, 0.5);
    const middle = (hi + lo) / 2;
    return [middle - span * 0.58, middle + span * 0.58];
  }

  function phases(u, group) {
    // Above the curves: what the machine said it was doing. A phase with a patient has a ground of its own down to the axis.
    const state = group.state && found(group.state);
    if (!state) return;
    const { left, top, width, height } = u.bbox;
    const high = 20 * devicePixelRatio;
    const context = u.ctx;
    const at = answer.t_ms;
    const codes = bridged(state.hi);
    const edge = (ms) => Math.min(Math.max(u.valToPos(ms / 1000, "x", true), left), left + width);
    context.save();
    context.font = `500 ${11 * devicePixelRatio}px ${css("--sans")}`;
    context.textBaseline = "middle";
    for (let first = 0; first < at.length; ) {
      const code = codes[first];
      let last = first;
      while (last + 1 < at.length && codes[last + 1] === code) last += 1;
      const [from, to] = [edge(at[first]), edge(at[Math.min(last + 1, at.length - 1)])];
      const busy = group.busy.includes(code);
      if (code !== null && group.phases[code] !== undefined) {
        context.fillStyle = css(busy ? "--phase" : "--phase-rest");
        context.fillRect(from, top - high, Math.max(to - from - 1, 1), busy ? high + height : high);
        const words = group.phases[code];
        if (context.measureText(words).width + 10 * devicePixelRatio < to - from) {
          context.fillStyle = css(busy ? "--ink" : "--ink-2");
          context.fillText(words, from + 5 * devicePixelRatio, top - high / 2);
        }
      }
      first = last + 1;
    }
    context.restore();
  }

  function bridged(codes) {
    // A sample or two that were lost do not end a phase; a real gap does.
    const filled = [...codes];
    for (let at = 1; at < filled.length; at += 1) {
      if (filled[at] !== null) continue;
      const next = [at + 1, at + 2].find((index) => index < filled.length && filled[index] !== null) ?? 0;
      if (next > 0 && filled[next] === filled[at - 1]) filled[at] = filled[next];
    }
    return filled;
  }

  function marks(u, group) {
    // A rejected sample is a small cross at its value, or at the edge when the value is far outside; without a value, a tick at the bottom.
    const { left, top, width, height } = u.bbox;
    const size = 3.5 * devicePixelRatio;
    const context = u.ctx;
    context.save();
    context.beginPath();
    context.rect(left, top, width, height);
    context.clip();
    context.lineWidth = 1.2 * devicePixelRatio;
    context.strokeStyle = css("--bad");
    for (const curve of group.curves) {
      for (const mark of found(curve.name)?.marks ?? []) {
        const x = u.valToPos(mark.t_ms / 1000, "x", true);
        context.beginPath();
        if (mark.value === null) {
          context.moveTo(x, top + height);
          context.lineTo(x, top + height - 1.5 * size);
        } else {
          const y = Math.min(Math.max(u.valToPos(mark.value, "y", true), top + size), top + height - size);
          context.moveTo(x - size, y - size);
          context.lineTo(x + size, y + size);
          context.moveTo(x + size, y - size);
          context.lineTo(x - size, y + size);
        }
        context.stroke();
      }
    }
    context.restore();
  }

  const found = (name) => answer?.byName.get(name);
  const note = document.querySelector("[data-chart-note]");
  const noteAtRest = note?.textContent ?? "";

  function readOut(u, group) {
    const at = u.cursor.idx;
    const figure = document.getElementById(group.id);
    group.curves.forEach((curve, index) => {
      const values = u.data[index + 1];
      const value = at === null || at === undefined ? lastOf(values) : values[at];
      figure.querySelector(`[data-read="${curve.name}"]`).textContent = text(value, curve.decimals);
    });
    if (note && group === plan[0]) {
      const seconds = at === null || at === undefined ? null : u.data[0][at];
      note.textContent = seconds ? `${day(seconds, zone, { day: "numeric", month: "short" })} ${clock(seconds, zone)} ${zone} = ${clock(seconds, "UTC")} UTC` : noteAtRest;
    }
  }

  function lastOf(values) {
    for (let at = values.length - 1; at >= 0; at -= 1) if (values[at] !== null && values[at] !== undefined) return values[at];
    return null;
  }

  function columns(group) {
    const times = answer.t_ms.map((ms) => ms / 1000);
    const newest = times.length ? times[times.length - 1] : 0;
    const run = live ? tail.filter((one) => one.t / 1000 > newest) : [];
    const x = [...times, ...run.map((one) => one.t / 1000)];
    const of = (name, key) => {
      const past = found(name)?.[key] ?? times.map(() => null);
      return [...past, ...run.map((one) => one.values[name] ?? null)];
    };
    const data = [x, ...group.curves.map((curve) => of(curve.name, "mean"))];
    for (const curve of group.curves) if (!curve.stepped) data.push(of(curve.name, "hi"), of(curve.name, "lo"));
    return data;
  }

  function summary(group, data) {
    const parts = [];
    group.curves.forEach((curve, index) => {
      const rejected = found(curve.name)?.rejected ?? 0;
      if (!curve.stepped) {
        const low = found(curve.name)?.lo.filter((value) => value !== null) ?? [];
        const high = found(curve.name)?.hi.filter((value) => value !== null) ?? [];
        if (low.length) {
          const least = low.reduce((a, b) => Math.min(a, b));
          const most = high.reduce((a, b) => Math.max(a, b));
          parts.push(`${curve.label} ${text(least, curve.decimals)} to ${text(most, curve.decimals)} ${group.unit}`);
        } else if (lastOf(data[index + 1]) === null) parts.push(`${curve.label}: no data`);
      }
      if (rejected) parts.push(`${rejected} rejected`);
    });
    document.getElementById(group.id).querySelector("[data-sum]").textContent = parts.join(" \u00b7 ");
  }

  function draw() {
    if (!answer) return;
    for (const group of plan) {
      const figure = document.getElementById(group.id);
      const plot = figure.querySelector(".plot");
      const data = columns(group);
      let chart = charts.find((one) => one.id === group.id);
      if (!chart) {
        chart = { id: group.id, plot: new uPlot(options(group, plot.clientWidth), data, plot) };
        charts.push(chart);
      } else chart.plot.setData(data, false);
      chart.plot.setScale("x", { min: answer.from_ms / 1000, max: Math.max(answer.to_ms, tail.length ? tail[tail.length - 1].t : 0) / 1000 });
      readOut(chart.plot, group);
      summary(group, data);
    }
    box.dataset.drawn = String(Number(box.dataset.drawn ?? 0) + 1);
  }

  async function fetchPast() {
    if (document.visibilityState !== "visible") return;
    try {
      const response = await fetch(`/api/v1/machines/${encodeURIComponent(serial)}/series?range=${range}`, { headers: { accept: "application/json" } });
      if (response.status === 401) {
        location.assign("/sign-in");
        return;
      }
      if (!response.ok) return;
      answer = await response.json();
    } catch {
      return; // The banner of the live panel tells that the server is gone; the next turn tries again.
    }
    answer.byName = new Map(answer.curves.map((curve) => [curve.channel, curve]));
    draw();
  }

  function takeLive() {
    const panel = document.getElementById("live");
    if (!panel) return;
    const now = JSON.parse(panel.dataset.live);
    if (now.t === null || (tail.length && tail[tail.length - 1].t >= now.t)) return;
    tail.push(now);
    tail = tail.slice(-TAIL_MAX);
    if (live) draw();
  }

  function again() {
    for (const chart of charts.splice(0)) chart.plot.destroy();
    draw();
  }

  let pending = 0;
  let width = box.clientWidth;
  new ResizeObserver(() => {
    if (box.clientWidth === width) return;
    width = box.clientWidth;
    cancelAnimationFrame(pending);
    pending = requestAnimationFrame(again);
  }).observe(box);
  document.addEventListener("icecap:theme", again);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  document.addEventListener("visibilitychange", fetchPast);
  document.body.addEventListener("htmx:afterSettle", takeLive);
  takeLive();
  fetchPast();
  setInterval(fetchPast, REFETCH_MS);
})();
