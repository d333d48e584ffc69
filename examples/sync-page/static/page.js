"use strict";

// Texts from outside become text nodes and nothing else: see element().

const PAGE_SIZE = 25;
const byId = (id) => document.getElementById(id);
const number = (value) => value == null ? "" : value.toLocaleString("en-US");
const date = (value) => value === "9999-12-31" ? "no end" : value ?? "";
const time = (value) => value
  ? new Date(value).toLocaleString("sv-SE", { dateStyle: "short", timeStyle: "short" }) : "";
const list = (values) => (values ?? []).join(", ");

function element(name, text, ...children) {
  const made = document.createElement(name);
  made.textContent = text ?? "";
  made.append(...children);
  return made;
}

// Columns are [title, function of a row, class]
function fillTable(id, columns, rows) {
  const line = (name, texts) => element("tr", "", ...columns.map(([, , style = ""], i) => {
    const cell = element(name, texts[i]);
    cell.className = style;
    cell.title = cell.textContent;      // where there is no room for all of it
    return cell;
  }));
  const head = line("th", columns.map(([title]) => title));
  const body = rows.map((row) => {
    const made = line("td", columns.map(([, value]) => value(row)));
    made.className = row.action ?? row.status ?? "";
    return made;
  });
  byId(id).replaceChildren(element("thead", "", head), element("tbody", "", ...body));
  byId(id).hidden = rows.length === 0;
}

function fillSelect(select, values, chosen) {
  select.replaceChildren(...values.map((value) => {
    const option = element("option", value || "all");
    option.value = value;               // the text's own blanks would not count
    option.selected = value === chosen;
    return option;
  }));
}

// An absolute URL: a relative one would take credentials over from the address bar
function url(path, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "");
  return `${location.origin}/api/reseller/${path}?${new URLSearchParams(given)}`;
}

async function get(path, parameters) {
  const response = await fetch(url(path, parameters));
  if (!response.ok) throw new Error((await response.json()).message);
  return response.json();
}

// The sync

let running = null;     // what cancels it

const COUNTS = [
  ["total_api", "listed by Yelp"], ["programs", "fetched"], ["retries", "retries"],
  ["added", "added"], ["updated", "updated"], ["unchanged", "unchanged"], ["deleted", "deleted"],
];

function showCounts(counts) {
  const known = COUNTS.filter(([name]) => name in counts);
  byId("counts").replaceChildren(...known.map(([name, title]) => {
    const value = element("dd", number(counts[name]));
    value.id = `count-${name}`;
    return element("div", "", element("dt", title), value);
  }));
}

function showProblem({ type, sqlstate, message, detail, hint }) {
  const item = element("li", "", element("strong", message));
  item.className = type;
  for (const more of [detail, hint, sqlstate && `SQLSTATE ${sqlstate}`]) {
    if (more) item.append(element("p", more));
  }
  byId("problems").append(item);
}

function showBar({ total, percentage }) {
  if (total === 0) byId("bar").removeAttribute("value");      // not known yet: it sways
  else byId("bar").value = percentage;
}

function showChanges(changes) {
  const { total = 0, rows = [], finished_at: at } = changes ?? {};
  const shown = rows.length < total ? `, the first ${number(rows.length)} are shown` : "";
  byId("changes-summary").textContent = changes
    ? `${number(total)} ${total === 1 ? "change" : "changes"} by the sync of ${time(at)}${shown}`
    : "Nothing is known yet.";
  fillTable("changes", [
    ["action", (row) => row.action], ["program", (row) => row.program_id],
    ["changed", (row) => list(row.changed)],
  ], rows);
}

const handlers = {
  progress: showBar,
  warning: showProblem,
  error: showProblem,
  complete: () => { byId("bar").value = 100; },
  changes: showChanges,
};

async function* readEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      if (block.startsWith("data: ")) yield JSON.parse(block.slice("data: ".length));
    }
  }
}

// Returns the type of the last event; "changes" follows the database's commit
async function followSync(account, signal) {
  const response = await fetch(url("programs/sync-stream"), {
    method: "POST", signal,
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ username: account }),
  });
  if (!response.ok) throw new Error((await response.json()).message);
  const counts = {};
  let last;
  for await (const event of readEvents(response)) {
    last = event.type;
    handlers[last]?.(event);
    for (const [name] of COUNTS) {
      if (name in event) counts[name] = event[name];
    }
    showCounts(counts);
    if (event.message && handlers[last] !== showProblem) {
      byId("status").textContent = event.message;
    }
  }
  return last;
}

async function sync() {
  const account = byId("account").value;
  running = new AbortController();
  byId("problems").replaceChildren();
  byId("status").textContent = "Connecting …";
  showCounts({});
  showBar({ total: 0 });
  showState("running");
  let end = "error";
  try {
    const last = await followSync(account, running.signal);
    if (last === "changes") end = last;
    else if (last !== "error") throw new Error("the connection to the server was lost");
  } catch (error) {
    if (running.signal.aborted) end = "cancelled";
    else showProblem({ type: "error", message: error.message });
  }
  running = null;
  if (end !== "changes") {
    byId("bar").value = 0;
    byId("status").textContent = end === "cancelled" ? "Cancelled." : "The sync failed.";
  }
  showState(end);
  await showAccount();
}

function showState(state) {
  byId("progress").dataset.state = state;
  byId("account").disabled = running !== null;
  byId("sync").disabled = running !== null || !byId("account").value;
  byId("cancel").hidden = running === null;
}

// The tables

let offset = 0;
let asked = 0;          // answers to all but the last question come too late

async function showPrograms() {
  const question = ++asked;
  const filters = Object.fromEntries(new FormData(byId("filters")));
  const { total, types, rows } = await get("programs",
    { ...filters, username: byId("account").value, limit: PAGE_SIZE, offset });
  if (question !== asked) return;
  fillTable("programs", [
    ["program", (row) => row.program_id], ["type", (row) => row.program_type],
    ["state", (row) => row.state], ["from", (row) => date(row.start_date)],
    ["to", (row) => date(row.end_date)], ["business", (row) => row.yelp_business_id],
    ["yours", (row) => row.partner_business_id],
    ["budget", (row) => [number(row.budget), row.currency].join(" "), "number"],
    ["clicks", (row) => number(row.billed_clicks), "number"],
    ["changed", (row) => time(row.updated_at)], ["problems", (row) => list(row.problems)],
  ], rows);
  const end = offset + rows.length;
  byId("range").value = total ? `${number(offset + 1)}–${number(end)} of ${number(total)}` : "none";
  byId("back").disabled = offset === 0;
  byId("forth").disabled = end >= total;
  fillSelect(byId("filters").elements.type, ["", ...types], filters.type);
}

async function showRuns() {
  const counts = ["programs", "requests", "added", "updated", "unchanged", "deleted", "missing"];
  fillTable("runs", [
    ["status", (row) => row.status], ["finished", (row) => time(row.finished_at)],
    ...counts.map((name) => [name, (row) => number(row[name]), "number"]),
  ], await get("runs", { username: byId("account").value }));
}

async function showAccount() {
  const username = byId("account").value;
  if (!username) return;
  const changes = get("programs/changes", { username }).then(showChanges);
  await Promise.all([showPrograms(), showRuns(), changes]);
}

function turnTo(wanted) {
  offset = wanted;
  return showPrograms();
}

// Runs what a user asked for; a fault is shown, not swallowed
const on = (id, event, action) => byId(id).addEventListener(event, (happened) => {
  happened.preventDefault();
  action().catch((error) => showProblem({ type: "error", message: error.message }));
});

on("sync", "click", sync);
on("cancel", "click", async () => running?.abort());
on("account", "change", () => { byId("filters").reset(); offset = 0; return showAccount(); });
on("filters", "change", () => turnTo(0));
on("filters", "submit", () => turnTo(0));
on("back", "click", () => turnTo(offset - PAGE_SIZE));
on("forth", "click", () => turnTo(offset + PAGE_SIZE));

get("accounts").then((accounts) => {
  const usernames = new Set(accounts.map(({ username }) => username));
  fillSelect(byId("account"), [...usernames]);
  showState("idle");
  return showAccount();
}).catch((error) => showProblem({ type: "error", message: error.message }));
