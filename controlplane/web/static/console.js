// Keeps the console current: listens to /events, fetches what <main> names as its fragment on each `change`, and puts it
// in the place of <main>.
// When the stream breaks it polls; the mark at the top always says how fresh the page is. Without this file the page
// still shows everything, as of the moment it was made.
"use strict";

(() => {
  const POLL_MS = 2000; // while the stream is broken
  const QUIET_MS = 10000; // a stream that says nothing for so long is not believed
  const DEADLINE_MS = 5000; // for one fetch
  const REOPEN_MS = 5000; // after the browser gave the stream up

  const live = document.getElementById("live");
  const liveText = document.getElementById("live-text");
  let stream = null;
  let streaming = false;
  let fetching = false;
  let again = false;
  let freshAt = Date.now();
  let failedSince = null;
  let clockAhead = 0; // the server's clock less ours, in milliseconds

  const main = () => document.getElementById("main");
  const clock = (at) => new Date(at).toISOString().slice(11, 19) + " UTC";

  function say(state, text) {
    if (live.dataset.state !== state) live.dataset.state = state;
    if (liveText.textContent !== text) liveText.textContent = text;
  }

  function tell() {
    if (failedSince !== null) say("stale", "Stale since " + clock(freshAt + clockAhead));
    else if (streaming) say("live", "Live");
    else say("reconnecting", "Reconnecting, looking every " + POLL_MS / 1000 + " s");
  }

  // --- ages --------------------------------------------------------------------------------------------------------

  function rough(seconds) {
    const whole = Math.max(0, Math.trunc(seconds));
    if (whole >= 172800) return Math.floor(whole / 86400) + " d";
    if (whole >= 7200) return Math.floor(whole / 3600) + " h";
    if (whole >= 120) return Math.floor(whole / 60) + " min";
    return whole + " s";
  }

  function age() {
    const now = Date.now() + clockAhead;
    for (const mark of document.querySelectorAll("time.ago")) {
      const seconds = (now - Date.parse(mark.dateTime)) / 1000;
      const text = seconds <= -1 ? "in " + rough(-seconds) : rough(seconds) + " ago";
      if (mark.textContent !== text) mark.textContent = text;
    }
  }

  function readClock() {
    const served = Date.parse(main().dataset.now);
    if (!Number.isNaN(served)) clockAhead = served - Date.now();
    document.title = main().dataset.title;
  }

  // --- putting the new <main> in the old one's place, node by node: focus, scroll, selection and open details stay --

  const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.id || node.dataset.key || "" : "");
  const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && keyOf(a) === keyOf(b);

  function morph(old, fresh) {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    const kept = (name) => name === "open" && old.nodeName === "DETAILS"; // the reader's choice
    for (const { name, value } of fresh.attributes) {
      if (!kept(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    for (const { name } of [...old.attributes]) {
      if (!kept(name) && !fresh.hasAttribute(name)) old.removeAttribute(name);
    }
    morphChildren(old, fresh);
  }

  function morphChildren(old, fresh) {
    const keyed = new Map();
    for (const child of old.children) if (keyOf(child)) keyed.set(keyOf(child), child);
    let cursor = old.firstChild;
    for (const child of [...fresh.childNodes]) {
      const key = keyOf(child);
      let match = key ? keyed.get(key) : cursor;
      keyed.delete(key);
      if (!match || !alike(match, child)) match = null;
      if (!match) {
        old.insertBefore(child, cursor);
        continue;
      }
      if (match === cursor) cursor = cursor.nextSibling;
      else old.insertBefore(match, cursor);
      morph(match, child);
    }
    while (cursor) {
      const next = cursor.nextSibling;
      cursor.remove();
      cursor = next;
    }
  }

  function show(html) {
    const fresh = new DOMParser().parseFromString(html, "text/html").getElementById("main");
    if (!fresh) throw new Error("the answer holds no <main>");
    const focused = document.activeElement;
    morph(main(), fresh);
    if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
    readClock();
  }

  // --- fetching ----------------------------------------------------------------------------------------------------

  async function look() {
    if (!main().dataset.fragment) return; // what the page shows is over
    if (fetching) {
      again = true;
      return;
    }
    fetching = true;
    try {
      const answer = await fetch(main().dataset.fragment, { cache: "no-store", signal: AbortSignal.timeout(DEADLINE_MS) });
      if (answer.status === 401) location.assign("/login"); // the session is over
      if (!answer.ok) throw new Error("status " + answer.status);
      show(await answer.text());
      freshAt = Date.now();
      failedSince = null;
    } catch {
      failedSince ??= Date.now();
    } finally {
      fetching = false;
      tell();
    }
    if (again && failedSince === null) {
      again = false;
      look();
    }
  }

  function listen() {
    stream = new EventSource("/events");
    stream.addEventListener("open", () => {
      streaming = true;
      look();
    });
    stream.addEventListener("change", look);
    stream.addEventListener("error", () => {
      streaming = false;
      tell();
      if (stream.readyState === EventSource.CLOSED) setTimeout(listen, REOPEN_MS);
    });
  }

  readClock();
  tell();
  listen();
  setInterval(age, 1000);
  setInterval(() => {
    const broken = !streaming || failedSince !== null;
    if (!document.hidden && (broken || Date.now() - freshAt > QUIET_MS)) look();
  }, POLL_MS);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) look();
  });
  addEventListener("pagehide", () => stream.close());
  addEventListener("pageshow", (shown) => {
    if (shown.persisted) listen();
  });
})();
