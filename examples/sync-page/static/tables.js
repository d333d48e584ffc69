// The tables: what the last sync changed, the last syncs, and the programs.

import { get } from "./api.js";
import { byId, count, date, element, enable, fillSelect, fillTable, inWords, isEnabled, number, sentence,
  time, withClass } from "./dom.js";

const PAGE_SIZE = 25;
const list = (values) => (values ?? []).join(", ");
const pill = (text) => text && withClass(`pill ${text.toLowerCase()}`, element("span", text));

let offset = 0;

// Answers to all but the last question come too late: action returns what shows the answer
function latest(action) {
  let asked = 0;
  return async (...given) => {
    const question = ++asked;
    const show = await action(...given);
    if (question === asked) show();
  };
}

function format(value) {
  if (value == null) return "none";
  if (Array.isArray(value)) return list(value) || "none";
  return typeof value === "number" ? number(value) : String(value);
}

// Which columns, and from what to what where the sync recorded it
function showChange({ program_id: id, changed, old, new: now }) {
  const items = (changed ?? []).map((name) => now && name in now
    ? element("li", `${name}: `, element("del", format(old[name])), " → ", element("ins", format(now[name])))
    : element("li", name));
  return withClass("change", element("div", "", element("span", id), element("ul", "", ...items)));
}

function changesSummary(changes) {
  if (!changes) return "Nothing is known yet.";
  const { total, rows, finished_at: at } = changes;
  const by = `by the sync of ${time(at)}`;
  if (total === 0) return `Nothing was changed ${by}.`;
  const what = `${count(total, "change")} ${by}`;
  if (rows.length === 0) return `${what}; the server option record_changes would record which ones.`;
  return rows.length < total ? `${what}, the first ${number(rows.length)} are shown` : what;
}

function showChanges(changes) {
  byId("changes-summary").textContent = changesSummary(changes);
  fillTable("changes", [
    ["action", ({ action }) => pill(action)], ["program", showChange, "wide"],
  ], changes?.rows ?? []);
}

function describeRun(run) {
  if (run.status === "failed") return sentence(run.error ?? "");
  return `${count(run.programs, "program")}: ${inWords(run) || "nothing has changed"}.`;
}

function showRuns(runs) {
  byId("runs-summary").textContent = runs.length ? "The last ten, latest first" : "None yet.";
  fillTable("runs", [
    ["status", ({ status }) => pill(status)], ["finished", (row) => time(row.finished_at), "when"],
    ["result", describeRun, "wide"],
  ], runs);
}

export const showPrograms = latest(async () => {
  const filters = Object.fromEntries(new FormData(byId("filters")));
  const { total, types, rows } = await get("programs",
    { ...filters, username: byId("account").value, limit: PAGE_SIZE, offset });
  return () => {
    const problems = rows.some((row) => row.problems)
      ? [["problems", (row) => list(row.problems)]] : [];
    fillTable("programs", [
      ["program", (row) => row.program_id], ["type", (row) => row.program_type],
      ["state", ({ state }) => pill(state)], ["from", (row) => date(row.start_date)],
      ["to", (row) => date(row.end_date)], ["business", (row) => row.yelp_business_id],
      ["yours", (row) => row.partner_business_id],
      ["budget", (row) => [number(row.budget), row.currency].join(" "), "number"],
      ["clicks", (row) => number(row.billed_clicks), "number"],
      ["changed", (row) => time(row.updated_at)], ...problems,
    ], rows);
    const end = offset + rows.length;
    byId("range").value = total ? `${number(offset + 1)}–${number(end)} of ${number(total)}` : "none";
    enable("back", offset > 0);
    enable("forth", end < total);
    fillSelect(byId("filters").elements.type, ["", ...types], filters.type);
  };
});

// Calls seeLastRun() with the first row of the last syncs
export const showTables = latest(async (username, seeLastRun) => {
  const [changes, runs] = await Promise.all([
    get("programs/changes", { username }), get("runs", { username }), showPrograms()]);
  return () => {
    showChanges(changes);
    showRuns(runs);
    seeLastRun(runs[0]);
  };
});

export function turnTo(wanted) {
  offset = wanted;
  return showPrograms();
}

export const turnBack = async () => { if (isEnabled("back")) await turnTo(offset - PAGE_SIZE); };
export const turnForth = async () => { if (isEnabled("forth")) await turnTo(offset + PAGE_SIZE); };

export function forgetPage() {
  byId("filters").reset();
  offset = 0;
}
