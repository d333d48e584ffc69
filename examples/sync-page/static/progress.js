// The card that shows an account's sync: from events to texts, a bar and counts.

import { byId, count, element, enable, inWords, number, sentence, time, withClass } from "./dom.js";

const COUNTS = [
  ["total_api", "listed by Yelp"], ["programs", "fetched"], ["retries", "retries"],
  ["added", "added"], ["updated", "updated"], ["unchanged", "unchanged"], ["deleted", "deleted"],
];
// Of what is left of the bar: only at its end it is known how often a sync reads the listing
const SHARE_OF_READING = 0.7;
const ANNOUNCED_PERCENT = 25;

let state = "loading";  // idle, running, lost, changes, partial, error, cancelled
let bar = 0;            // in percent, null where it is not known
let counts = {};
let running = false;    // as far as is known, also while the connection is lost
let ended = {};         // the last event of the sync that is shown
let announced;

function show(newState, text, percent) {
  state = newState;
  bar = percent;
  byId("progress").dataset.state = state;
  byId("status").textContent = text;
  if (bar === null) byId("bar").removeAttribute("value");
  else byId("bar").value = bar;
  showCounts();
  enable("sync", !["loading", "running", "lost"].includes(state));
  enable("cancel", state === "running");
  announce(text);
}

function showCounts() {
  byId("counts").replaceChildren(...COUNTS.map(([name, title]) => {
    const value = element("dd", number(counts[name]) || "–");
    value.id = `count-${name}`;
    return element("div", "", element("dt", title), value);
  }));
}

// Not each step of the bar is read out
function announce(text) {
  const step = state === "running" ? Math.floor(bar / ANNOUNCED_PERCENT) : text;
  if (announced !== `${state} ${step}`) byId("announcer").textContent = text;
  announced = `${state} ${step}`;
}

export function showProblem({ type, sqlstate, message, detail, hint }) {
  const item = withClass(type, element("li", "", element("strong", sentence(message))));
  for (const text of [detail, hint]) {
    if (text) item.append(element("p", sentence(text)));
  }
  if (sqlstate) item.append(element("p", `SQLSTATE ${sqlstate}`));
  byId("problems").append(item);
}

// Another account, or the events of a sync from its first one on
function begin({ running: isRunning, started_by: user, started_at: at, account }) {
  const interrupted = running && !user;
  counts = {};
  running = isRunning;
  ended = {};
  byId("who").textContent = user ? `Started by ${user} at ${time(at)}` : "";
  byId("problems").replaceChildren();
  if (running) show("running", "Connecting to Yelp …", null);
  else show("idle", `No sync of ${account} is running.`, 0);
  if (interrupted) {
    showProblem({ type: "warning", message: "The server was restarted, which ended the sync",
      hint: "Unless it is the first one of the last syncs below, nothing was changed" });
  }
}

function showPages({ reading, completed, total, percentage }) {
  if (total === 0) return show("running", "Waiting for the first page …", bar || null);
  const left = 100 * (1 - SHARE_OF_READING) ** (reading - 1);
  const reached = 100 - left + left * SHARE_OF_READING * percentage / 100;
  const pages = `${number(completed)} of ${count(total, "page")}`;
  const text = completed === total ? "Comparing with the stored programs …"
    : reading === 1 ? `Fetching: ${pages}` : `Fetching once more, to be sure: ${pages}`;
  return show("running", text, Math.max(bar, reached));
}

function end(event, newState, text, percent) {
  running = false;
  ended = event;
  show(newState, text, percent);
}

function summary({ total, rows }) {
  const missing = rows.filter(({ action }) => action === "missing").length;
  return total === 0 ? "nothing has changed" : inWords({ ...counts, missing });
}

const handlers = {
  state: begin,
  progress: showPages,
  complete: () => show("running", "Saving …", Math.max(bar, 99)),
  warning: showProblem,
  changes: (event) => event.status === "partial"
    ? end(event, "partial", `Done, with warnings: ${summary(event)}.`, 100)
    : end(event, "changes", `Done: ${summary(event)}.`, 100),
  error: (event) => {
    showProblem(event);
    end(event, "error", event.run_id || event.sqlstate === "55P03" ? "The sync failed. Nothing was changed."
      : "The sync failed.", 0);
  },
  cancelled: (event) => end(event, "cancelled",
    `Cancelled${event.by ? ` by ${event.by}` : ", because the server was stopped"}. Nothing was changed.`, 0),
};

export function heed(event) {
  for (const [name] of COUNTS) {
    if (name in event) counts[name] = event[name];
  }
  handlers[event.type]?.(event);
}

export function showLost(text = "Connection lost, reconnecting …") {
  counts = {};
  byId("who").textContent = "";
  show("lost", text, 0);
}

export function forget() {
  running = false;
  counts = {};
  show("loading", "Loading …", 0);
}

// What the history says, if this server's last sync is not the last one
export function showLastRun(run) {
  if (!run || running || state === "lost" || run.run_id === ended.run_id) return;
  if (new Date(run.finished_at) <= new Date(ended.at)) return;
  counts = { ...run, total_api: run.programs };
  byId("who").textContent = "";
  show("idle", `Last sync: ${run.status} at ${time(run.finished_at)}.`, 0);
}
