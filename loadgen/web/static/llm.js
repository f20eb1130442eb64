"use strict";
// Draws what /llm/data says, every second. Text goes in as text, never as markup.
const charts = [
  { id: "tokens", lines: [["output_tokens_per_s", "tokens/s", "#2f81f7"]] },
  { id: "ttft", lines: [["ttft_p50_ms", "p50", "#2da44e"], ["ttft_p95_ms", "p95", "#bf8700"], ["ttft_p99_ms", "p99", "#cf222e"]] },
  { id: "tpot", lines: [["tpot_p50_ms", "p50", "#2da44e"], ["tpot_p99_ms", "p99", "#cf222e"]] },
  { id: "requests", lines: [["sent_per_s", "sent/s", "#2f81f7"], ["scheduled_per_s", "due/s", "#bf8700", [4, 4]], ["in_flight", "in flight", "#6e7781"]] },
];
const HEIGHT = 220;

function options(chart, width) {
  const stroke = () => getComputedStyle(document.body).color;
  const axis = { stroke, grid: { stroke: "#8883" }, ticks: { stroke: "#8883" } };
  return {
    width, height: HEIGHT,
    scales: { x: { time: false }, y: { range: (u, min, max) => [0, Math.max(max || 0, 1) * 1.1] } },
    series: [{ label: "seconds" }, ...chart.lines.map(([, label, color, dash]) => ({ label, stroke: color, dash, width: 2, spanGaps: true, points: { show: false } }))],
    axes: [axis, { ...axis, size: 60 }],
  };
}

function draw(chart, columns) {
  const place = document.getElementById(chart.id);
  const data = [columns.t || [], ...chart.lines.map(([name]) => columns[name] || [])];
  if (!chart.plot) chart.plot = new uPlot(options(chart, place.clientWidth), data, place);
  else chart.plot.setData(data);
  // Where nobody points at an instant, the legend tells the latest.
  if (chart.plot.cursor.idx == null && data[0].length) chart.plot.setLegend({ idx: data[0].length - 1 });
  place.dataset.points = data[0].length;
}

function fillTable(titles, rows) {
  const table = document.getElementById("table");
  const head = document.createElement("tr");
  for (const [, title] of titles) head.append(cell("th", title));
  const body = rows.map((row) => {
    const line = document.createElement("tr");
    for (const [key] of titles) line.append(cell("td", row[key]));
    return line;
  });
  table.replaceChildren(head, ...body);
}

function cell(kind, text) {
  const made = document.createElement(kind);
  made.textContent = text;
  return made;
}

function say(report) {
  document.getElementById("run").textContent = report.run || "no run yet";
  const [verdict, reasons] = report.verdict || ["", []];
  const badge = document.getElementById("verdict");
  badge.textContent = verdict;
  badge.className = verdict === "ok" ? "ok" : "bad";
  document.getElementById("reasons").textContent = reasons.join("; ");
}

async function refresh() {
  try {
    const report = await (await fetch("llm/data")).json();
    say(report);
    fillTable(report.titles, report.rows);
    for (const chart of charts) draw(chart, report.columns);
  } catch (error) {
    document.getElementById("reasons").textContent = "Locust does not answer: " + error.message;
  }
  setTimeout(refresh, 1000);
}

addEventListener("resize", () => {
  for (const chart of charts) {
    if (chart.plot) chart.plot.setSize({ width: document.getElementById(chart.id).clientWidth, height: HEIGHT });
  }
});
refresh();
