// Requests to the page's server.

const RECONNECT_MS = 1000;
const SILENCE_MS = 16000;       // the server says at least every five seconds that it is alive

// An absolute URL: a relative one would take credentials over from the address bar
function url(path, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "");
  return `${location.origin}/api/reseller/${path}?${new URLSearchParams(given)}`;
}

async function ask(path, parameters, options) {
  const response = await fetch(url(path, parameters), options).catch(() => {
    throw new Error("The server cannot be reached.");
  });
  if (!response.ok) {
    const { message } = await response.json().catch(() => ({}));
    throw new Error(message ?? `The server answered ${response.status}.`);
  }
  return response;
}

export const get = async (path, parameters) => (await ask(path, parameters)).json();

// The answer's body, which may be a stream, is not waited for
export async function post(path, body) {
  const response = await ask(path, {}, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  response.body.cancel();
}

// Calls heed() for each event of an account's syncs, and lose() when the connection is lost, which
// is made again until the function that this returns is called.
export function follow(username, heed, lose) {
  let source, timer;
  const stop = () => {
    source.close();                     // it would not try again after an answer like 502
    clearTimeout(timer);
  };
  const next = (action, delay) => {
    clearTimeout(timer);
    timer = setTimeout(action, delay);
  };
  const fail = () => {
    stop();
    next(connect, RECONNECT_MS);
    lose();
  };
  const connect = () => {
    source = new EventSource(url("programs/sync-stream", { username }));
    source.onerror = fail;
    source.onmessage = ({ data }) => {
      next(fail, SILENCE_MS);
      heed(JSON.parse(data));
    };
    next(fail, SILENCE_MS);
  };
  connect();
  return stop;
}
