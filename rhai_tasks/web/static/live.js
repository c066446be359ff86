// Updates the live part of a page: the server sends it again with each change, and parts that differ are replaced.
// Without this file, pages work too, and keep the state of when they were loaded.
"use strict";

const region = document.querySelector("[data-live]");
const connection = document.getElementById("connection");
const clock = document.getElementById("clock");
const title = document.title;
const icon = document.querySelector("link[rel=icon]");
const help = document.getElementById("keys");
const areKeysOn = document.getElementById("keys-on");
const holdSeconds = 5; // for which a part is kept under the pointer
const lateSeconds = 8; // the server sends something every 2 s
const held = new Map(); // by id of a part: since when it is kept under the pointer
let source = null;
let again = 0;
let ended = false;
let heard = Date.now(); // when the last figures came
let problem = ""; // why there are none
let isConnected = false;

// Says what a control does, so that it is found again when its row has moved; one that is gone is not found.
function identity(element) {
  if (element.matches("a")) return "a " + element.getAttribute("href");
  const form = element.closest("form");
  const values = form && element.matches("button") ? [...new FormData(form)].join(" ") : element.id + element.value;
  return [element.tagName, form?.action, element.getAttribute("formaction"), element.textContent, values].join(" ");
}

// A part stays as it is while somebody selects text, chooses or types in it, and for a moment under the pointer:
// otherwise a click would hit another row.
function isInUse(part) {
  const chosen = window.getSelection();
  const focus = document.activeElement;
  const isUsed = (chosen && !chosen.isCollapsed && part.contains(chosen.anchorNode)) ||
    part.querySelector("input[type=checkbox]:checked") !== null ||
    (part.contains(focus) && focus !== part && focus.matches("input, select, textarea"));
  if (!part.querySelector("a:hover, button:hover")) {
    held.delete(part.id);
    return isUsed;
  }
  if (!held.has(part.id)) held.set(part.id, Date.now());
  return isUsed || Date.now() - held.get(part.id) < holdSeconds * 1000;
}

function replace(old, fresh) {
  const focus = old.contains(document.activeElement) ? document.activeElement : null;
  const sought = focus && identity(focus);
  old.replaceWith(fresh);
  if (!focus) return;
  const found = [...fresh.querySelectorAll("a, button, [tabindex]")].find((element) => identity(element) === sought);
  found?.focus({ preventScroll: true }); // else no control has the focus: the browser goes on from this place
}

function show(html) {
  const page = new DOMParser().parseFromString(html, "text/html");
  const fresh = [...page.body.children];
  const old = [...region.children];
  const isAlike = fresh.length === old.length && fresh.every((part, place) => part.id && part.id === old[place].id);
  if (!isAlike) {
    region.replaceChildren(...fresh);
    return;
  }
  fresh.forEach((part, place) => {
    if (!part.isEqualNode(old[place]) && !isInUse(old[place])) replace(old[place], part);
  });
}

// The state is read out when it changes; the clock beside it is not.
function tell() {
  const seconds = Math.round((Date.now() - heard) / 1000);
  const isStale = !ended && (problem !== "" || seconds > lateSeconds);
  const state = ended ? "" : problem || (isStale ? "no connection" : isConnected ? "live" : "connecting");
  if (connection.textContent !== state) connection.textContent = state;
  clock.textContent = isStale
    ? `figures are ${seconds} s old`
    : `${new Date(heard).toISOString().slice(0, 19).replace("T", " ")} UTC`;
  connection.parentElement.classList.toggle("bad", isStale);
  region.classList.toggle("stale", isStale);
  const alarms = Number(region.querySelector("[data-alarms]")?.dataset.alarms ?? 0);
  document.title = isStale ? `! ${title}` : alarms ? `(${alarms}) ${title}` : title;
  const wanted = isStale || alarms ? "/static/alarm.svg" : "/static/icon.svg";
  if (icon.getAttribute("href") !== wanted) icon.setAttribute("href", wanted);
}

function hear(html) {
  heard = Date.now();
  problem = "";
  isConnected = true;
  if (html !== null) show(html);
  tell();
}

function open() {
  source = new EventSource(region.dataset.live);
  source.onmessage = (event) => hear(event.data);
  source.addEventListener("same", () => hear(null));
  source.addEventListener("problem", (event) => { problem = event.data; tell(); });
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) again = setTimeout(open, 10000); // refused: browsers give up then
  };
  source.addEventListener("end", () => { ended = true; problem = ""; source.close(); tell(); });
}

// Controls that need this file are shown only with it, and copy buttons where a browser lets them copy.
document.documentElement.classList.add("js");
if (navigator.clipboard) document.documentElement.classList.add("copies");
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  navigator.clipboard.writeText(button.dataset.copy).then(
    () => { button.textContent = "Copied"; },
    () => { button.textContent = "Not copied"; },
  );
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
});

// Keys: they can be switched off, since speech input types letters.
areKeysOn.checked = localStorage.getItem("keys") !== "off";
areKeysOn.addEventListener("change", () => localStorage.setItem("keys", areKeysOn.checked ? "on" : "off"));
document.getElementById("keys-open").addEventListener("click", () => help.showModal());

function move(step) {
  const links = [...document.querySelectorAll("main tbody tr")].map((row) => row.querySelector("a")).filter(Boolean);
  const row = document.activeElement.closest("main tbody tr");
  const place = links.findIndex((link) => row?.contains(link));
  const next = links[place < 0 ? (step > 0 ? 0 : links.length - 1) : place + step];
  next?.focus();
}

const keys = {
  "/": () => document.getElementById("find")?.focus(),
  "?": () => help.showModal(),
  j: () => move(1),
  k: () => move(-1),
};
document.addEventListener("keydown", (event) => {
  const isTyped = event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey;
  if (isTyped || help.open || (event.key !== "?" && !areKeysOn.checked) || !Object.hasOwn(keys, event.key)) return;
  event.preventDefault();
  keys[event.key]();
});

// A hidden page costs nothing, and uses none of the few connections that a browser opens to one server.
document.addEventListener("visibilitychange", () => {
  if (!region || ended) return;
  source?.close();
  clearTimeout(again);
  if (!document.hidden) open();
});
if (region) {
  if (!document.hidden) open();
  setInterval(() => { if (!document.hidden) tell(); }, 1000);
}
