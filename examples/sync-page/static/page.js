// The page: an account, what its syncs are doing, and what is known of its programs.  The state
// always comes from the server, so all tabs show the same, also after a reload or a lost server.

import { follow, get, post } from "./api.js";
import { byId, fillSelect, isEnabled, sentence } from "./dom.js";
import { forget, heed, showLastRun, showLost, showProblem } from "./progress.js";
import { forgetPage, showPrograms, showTables, turnBack, turnForth, turnTo } from "./tables.js";

const RETRY_MS = 1000;
const ENDS = ["changes", "error", "cancelled"];

let unfollow = () => {};

const account = () => byId("account").value;
const refresh = () => attempt(() => showTables(account(), showLastRun));

// A fault is shown, not swallowed
async function attempt(action) {
  try {
    await action();
  } catch (error) {
    showProblem({ type: "error", message: error.message });
  }
}

function followAccount() {
  unfollow();
  unfollow = follow(account(), (event) => {
    heed(event);
    // The tables are read once: with the end of a sync, or where no end will follow
    const isLast = event.type === "state" && (event.running || !event.started_by);
    if (isLast || ENDS.includes(event.type)) refresh();
  }, showLost);
}

function chooseAccount() {
  history.replaceState(null, "", `?${new URLSearchParams({ account: account() })}`);
  forgetPage();
  forget();
  followAccount();
}

async function start() {
  let accounts;
  try {
    accounts = await get("accounts");
  } catch (error) {
    showLost(`${sentence(error.message)} Trying again …`);
    setTimeout(start, RETRY_MS);
    return;
  }
  const wanted = new URLSearchParams(location.search).get("account");
  fillSelect(byId("account"), [...new Set(accounts.map(({ username }) => username))], wanted);
  if (accounts.length > 0) chooseAccount();
  else showProblem({ type: "warning", message: "There is no account yet",
    hint: "Create a server and a user mapping, as the README of yelp_sync shows" });
}

function on(id, event, action) {
  byId(id).addEventListener(event, (happened) => {
    happened.preventDefault();
    attempt(action);
  });
}

const ask = (button, path) => on(button, "click", async () => {
  if (isEnabled(button)) await post(path, { username: account() });
});

ask("sync", "programs/sync-stream");
ask("cancel", "programs/cancel");
on("account", "change", async () => chooseAccount());
on("filters", "change", () => turnTo(0));
on("filters", "submit", () => turnTo(0));
on("back", "click", turnBack);
on("forth", "click", turnForth);

// A browser has few connections to a server, and a tab that nobody sees needs none
document.addEventListener("visibilitychange", () => {
  if (!account()) return;
  if (document.hidden) unfollow();
  else followAccount();
});

start();
