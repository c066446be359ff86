// Updates the live part of a page: the server sends it again with each change, and parts that differ are replaced.
// Without this file, pages work too, and keep the state of when they were loaded.
"use strict";

const region = document.querySelector("[data-live]");
const connection = document.getElementById("connection");
let source = null;
let again = 0;
let ended = false;

function isInUse(part) {
  const chosen = window.getSelection();
  const focus = document.activeElement;
  return (chosen && !chosen.isCollapsed && part.contains(chosen.anchorNode)) ||
    part.querySelector("input[type=checkbox]:checked") !== null ||
    (part.contains(focus) && focus !== part && focus.matches("input, select, textarea"));
}

function replace(old, fresh) {
  const focus = old.contains(document.activeElement) ? document.activeElement : null;
  const place = focus ? [...old.querySelectorAll("a, button, [tabindex]")].indexOf(focus) : -1;
  old.replaceWith(fresh);
  if (place >= 0) [...fresh.querySelectorAll("a, button, [tabindex]")][place]?.focus({ preventScroll: true });
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

function open() {
  source = new EventSource(region.dataset.live);
  source.onopen = () => { connection.textContent = "live"; };
  source.onmessage = (event) => show(event.data);
  source.onerror = () => {
    connection.textContent = "not connected, trying again";
    if (source.readyState === EventSource.CLOSED) again = setTimeout(open, 10000); // refused: browsers give up then
  };
  source.addEventListener("end", () => { ended = true; connection.textContent = ""; source.close(); });
}

// A hidden page costs nothing, and uses none of the few connections that a browser opens to one server.
document.addEventListener("visibilitychange", () => {
  if (!region || ended) return;
  source?.close();
  clearTimeout(again);
  if (!document.hidden) open();
});
if (region && !document.hidden) open();
