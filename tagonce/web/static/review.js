// The pages work without this. It saves a click: what is moved is shown at once, and a part of a page is replaced
// instead of all of it. An answer is a page from the server, of which the part with the same id is taken. The gallery
// is sent which cards are shown here, and answers with what differs from them (gallery.py).

const PARTS = new DOMParser();

async function ask(address, options) {
  const answer = await fetch(address, { credentials: "same-origin", ...options });
  return PARTS.parseFromString(await answer.text(), "text/html");
}

// What can be reached by Tab, in order. The focus moves to the element in the same place afterwards.
const STOPS = "a, button, input, select, summary";

function replace(id, page) {
  const fresh = page.getElementById(id);
  const old = document.getElementById(id);
  if (!fresh || !old) return false;
  const place = [...old.querySelectorAll(STOPS)].indexOf(document.activeElement);
  complete(fresh, old);
  old.replaceWith(fresh);
  if (place >= 0) [...fresh.querySelectorAll(STOPS)][place]?.focus({ preventScroll: true });
  return true;
}

// Which cards are shown here, for a request whose answer may build on them.
function known() {
  const cards = [...document.querySelectorAll("[data-digest]")].map((card) => card.dataset.digest);
  return { headers: { "X-Cards": cards.join(" ") } };
}

// Whether the cards on which an answer builds are still as they were when it was asked for.
function fits(page) {
  return [...page.querySelectorAll("[data-known]")].every(
    (card) => document.getElementById(card.id)?.dataset.digest === card.dataset.known);
}

// Put the cards that are here into an answer, with the tags that it says.
function complete(fresh, old) {
  for (const card of fresh.querySelectorAll("[data-known]")) {
    const mine = old.querySelector(`#${card.id}`);
    const parts = [...mine.querySelectorAll(".chip, .lost")];
    for (const gap of card.querySelectorAll("[data-parts]")) gap.replaceWith(...parts.slice(...gap.dataset.parts.split(" ")));
    mine.querySelectorAll(".change, :scope > [role=alert]").forEach((gone) => gone.remove());
    mine.querySelector(".chips").replaceWith(...card.childNodes);
    mine.dataset.digest = card.dataset.digest;
    direct(mine, fresh.dataset.address);
    card.replaceWith(mine);
  }
}

// Links, and where a form leads back to, belong to what is shown now.
function direct(part, address) {
  const query = new URL(address, location.href).search;
  for (const link of part.querySelectorAll("a")) link.setAttribute("href", link.pathname + query);
  for (const back of part.querySelectorAll("[name=back]")) back.value = address;
}

// What went wrong, above what is there.
function say(words, id) {
  const part = document.getElementById(id) ?? document.getElementById("results");
  part.querySelector(":scope > [role=alert]")?.remove();
  const error = document.createElement("p");
  error.className = "panel error";
  error.setAttribute("role", "alert");
  error.textContent = words;
  part.prepend(error);
}

const GONE = "No answer. Is tagonce review still running?";

// --- Forms that show what they say while it is being said. One question is under way at a time; what came meanwhile is
// asked after it.

function address(form) {
  const said = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value !== "") said.append(name, value);
  return said.size ? `${form.action.split("?")[0]}?${said}` : form.action.split("?")[0];
}

// The shortest address of what is shown, where the page tells it.
function shown(id) {
  return document.getElementById(id).dataset.address;
}

// Back leads to what was shown before. Moves of one control less than a second apart are one step.
const STEP_MS = 1000;
let lastMove = { control: "", at: 0 };
let here = location.pathname + location.search;

function remember(where, control) {
  const now = Date.now();
  const goesOn = lastMove.control === control && now - lastMove.at < STEP_MS;
  lastMove = { control, at: now };
  const next = new URL(where, location.href);
  if (next.pathname + next.search === here) return;
  here = next.pathname + next.search;
  if (goesOn) history.replaceState(null, "", where);
  else history.pushState(null, "", where);
}

// Number of steps back or forward: an answer to an earlier request is not shown any more.
let travels = 0;

function live(form) {
  const [id, ...others] = form.dataset.live.split(" ");
  let asking = false;
  let again = false;
  let waiting = 0;
  let moved = "";
  const busy = (is) => document.getElementById(id).setAttribute("aria-busy", String(is));
  const show = async () => {
    if (asking) { again = true; return; }
    asking = true;
    do {
      again = false;
      const where = address(form);
      const since = travels;
      try {
        const page = await ask(where, known());
        const wrong = page.querySelector("[role=alert]");
        if (since !== travels) continue;
        if (wrong) say(wrong.textContent, id);
        else if (!fits(page)) again = true;
        else if (!again && replace(id, page)) {
          for (const other of others) replace(other, page);
          if (!replace("top", page)) direct(document.getElementById("top"), shown(id));
          remember(shown(id) ?? where, moved);
          tell();
        }
      } catch {
        say(GONE, id);
      }
    } while (again);
    asking = false;
    busy(false);
  };
  // The address says all of a page: the form is filled in from it as well.
  addEventListener("popstate", async () => {
    if (here === location.pathname + location.search) return; // to another place of the same page
    here = location.pathname + location.search;
    const since = ++travels;
    clearTimeout(waiting);
    lastMove = { control: "", at: 0 };
    busy(true);
    try {
      const page = await ask(location.href);
      if (since !== travels) return;
      const fresh = page.querySelector("form[data-live]");
      if (!fresh || !replace(id, page)) { location.reload(); return; }
      for (const other of [...others, "top"]) replace(other, page);
      const open = [...form.querySelectorAll("details")].map((details) => details.open);
      form.replaceChildren(...fresh.childNodes);
      form.querySelectorAll("details").forEach((details, at) => { details.open = open[at] ?? details.open; });
      tell();
    } catch {
      say(GONE, id);
    }
    busy(false);
  });
  form.addEventListener("input", (event) => {
    const control = event.target;
    if ("reload" in control.dataset) { // another profile begins as it is
      form.querySelectorAll(".number").forEach((number) => { number.value = ""; });
      location.assign(address(form));
      return;
    }
    moved = control.dataset.number ?? (control.id || control.name);
    const number = control.dataset.number ? document.getElementById(control.dataset.number) : control;
    if (number !== control) number.value = control.value;
    if (control.dataset.selects) document.getElementById(control.dataset.selects).checked = true;
    if (number.matches(".number")) follow(form, number);
    clearTimeout(waiting);
    // A search is shown when it is written, a number when it is one.
    busy(asking || form.checkValidity());
    if (form.checkValidity()) waiting = setTimeout(show, control.type === "search" ? 400 : 0);
  });
  form.addEventListener("change", (event) => event.target.reportValidity());
  form.addEventListener("submit", (event) => { event.preventDefault(); show(); });
}

// For those who listen: the sentence on what changes, in a place that stays.
function tell() {
  const change = document.getElementById("change");
  if (change) document.getElementById("said").textContent = change.textContent.replace(/\s+/g, " ");
}

// Categories without a threshold of their own go along with the one for all tags.
function follow(form, number) {
  number.value = number.value.replace(",", ".");
  const value = number.value || number.placeholder;
  const range = form.querySelector(`[data-number="${CSS.escape(number.id)}"]`);
  number.setCustomValidity(number.value !== "" && Number(number.value) < Number(range.min) ? number.title : "");
  const place = value === "off" ? 1 : value;
  if (!Number.isFinite(Number(place))) return;
  range.value = place;
  if (number.name !== "t") return;
  form.querySelectorAll(".slider[data-follows]").forEach((slider) => {
    const [own, each] = [slider.querySelector(".number"), slider.querySelector("[type=range]")];
    own.placeholder = value;
    if (own.value === "") each.value = place;
  });
}

document.querySelectorAll("form[data-live]").forEach(live);
if (matchMedia("(max-width: 48rem)").matches)
  document.querySelectorAll("[data-closed-on-phones]").forEach((details) => { details.open = false; });

// --- Right and wrong: the picture is replaced, and the page stays where it is.

document.addEventListener("submit", async (event) => {
  const id = event.target.dataset.part;
  if (!id || !event.submitter) return;
  event.preventDefault();
  const said = new URLSearchParams(new FormData(event.target, event.submitter));
  try {
    const page = await ask(event.target.action, { method: "POST", body: said });
    const parts = [id, ...(event.target.dataset.also ?? "").split(" ").filter(Boolean)];
    if (!parts.map((part) => replace(part, page))[0]) say(page.querySelector("[role=alert]")?.textContent ?? GONE, id);
  } catch {
    say(GONE, id);
  }
});

// --- What goes on by itself: a page of progress, a count that is not finished.

function refresh() {
  const parts = [...document.querySelectorAll("[data-refresh]")];
  if (!parts.length) return;
  const since = travels;
  setTimeout(async () => {
    try {
      const where = location.href;
      const page = document.hidden ? null : await ask(where, known());
      const wrong = page?.querySelector("[role=alert]");
      if (wrong) say(wrong.textContent, "results");
      else if (page && where === location.href && since === travels) for (const part of parts) replace(part.id, page);
    } catch {
      say(GONE, "results"); // it may be back next time
    }
    refresh();
  }, 1000 * Math.min(...parts.map((part) => Number(part.dataset.refresh))));
}
refresh();

// A picture that a slow storage has not delivered yet is 1201 pixels wide, as no other is, and says so (pictures.py).
setInterval(() => {
  for (const image of document.querySelectorAll("img"))
    if (image.complete && image.naturalWidth === 1201) image.src = image.src.split("?")[0] + "?again=" + Date.now();
}, 3000);

document.addEventListener("click", (event) => {
  const step = event.target.closest("[data-step]");
  if (!step) return;
  const number = document.getElementById(step.dataset.step);
  number.stepUp();
  number.dispatchEvent(new Event("input", { bubbles: true }));
});

document.addEventListener("click", async (event) => {
  const copy = event.target.closest("[data-copy]");
  if (!copy) return;
  try {
    await navigator.clipboard.writeText(copy.dataset.copy);
    copy.textContent = "Copied";
  } catch { // a browser allows it on https and on this machine alone: it is selected instead
    getSelection().selectAllChildren(copy.parentElement.querySelector("code"));
  }
});

// --- Keys, where the focus is among the pictures or nowhere: j and k go from one to the next, y and n say right and
// wrong of its first tag.

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
  if (event.target !== document.body && !event.target.closest(".results")) return;
  const cards = [...document.querySelectorAll(".card")];
  const at = cards.findIndex((card) => card.contains(document.activeElement));
  const step = { j: 1, k: -1 }[event.key];
  if (step && cards.length) {
    const next = cards[Math.min(Math.max(at + step, 0), cards.length - 1)];
    next.querySelector("a, button").focus();
    next.scrollIntoView({ block: "nearest" });
  }
  const kind = { y: ".right", n: ".wrong" }[event.key];
  if (kind && at >= 0) cards[at].querySelector(kind)?.click();
});
