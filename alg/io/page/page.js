// The status page. What the API tells comes from strangers in part: it becomes text nodes, never
// markup. Only the view that is looked at is asked for, every two seconds, while it can be seen.
"use strict";

const INTERVAL = 2000;
const PAGE = 100;
const LONGEST = 120;
const byId = (id) => document.getElementById(id);

// As `alg.observe.printable`: nothing that hides, moves or turns round what stands beside it.
function shown(value) {
  const text = value === null || value === undefined ? "–" : String(value);
  const cut = text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
  return cut.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

const count = (number) => (typeof number === "number" ? number.toLocaleString("en") : "–");

const amount = (value) => (typeof value === "number" ? count(value) : shown(value));

function duration(seconds) {
  if (typeof seconds !== "number") return "–";
  const whole = Math.floor(seconds);
  const [days, hours] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24];
  const clock = [Math.floor(whole / 60) % 60, whole % 60].map((n) => String(n).padStart(2, "0"));
  return `${days ? `${days} d ` : ""}${days || hours ? `${hours}:` : ""}${clock.join(":")}`;
}

const long = (text) => element("div", "long", shown(text));
const address = (value) => element("span", "address", shown(value));
const tag = (value, className = "") => element("span", `tag ${className}`, shown(value));

function party(host, user) {
  const made = element("div", "", address(host));
  if (user !== undefined) made.append(long(user));
  return made;
}

function stream(each) {
  const line = element("div", "", `${shown(each.media ?? each.kind)} `);
  line.append(address(each.internal), " ⇄ ", address(each.remote), " ");
  const sides = [["→", each.sent, /phone|either/], ["←", each.received, /remote|either/]];
  for (const [arrow, packets, side] of sides) {
    const isSilent = side.test(each.silent ?? "");
    line.append(element("span", isSilent ? "silent" : "", `${arrow} ${count(packets)}`), " ");
  }
  return line;
}

const STATES = new Set(["ringing", "up", "held", "ending", "ended"]);

function streams(call) {
  const cell = element("div", "streams");
  cell.append(...(call.streams ?? []).filter((each) => each.kind !== "rtcp").map(stream));
  for (const warning of call.warnings ?? []) {
    cell.append(element("div", "warning", `⚠ ${shown(warning)}`));
  }
  return cell;
}

function ladderButton(call) {
  const button = element("button", "", "Ladder");
  button.type = "button";
  button.dataset.key = shown(`${call.phone} ${call.call_id}`);
  button.addEventListener("click", () => showLadder(call.call_id));
  return button;
}

// A view: what is asked for, and its columns as [heading, row -> what stands there, class].
const VIEWS = {
  calls: {
    empty: "No calls at the moment.",
    columns: [
      ["State", (row) => tag(row.state, STATES.has(row.state) ? row.state : "")],
      ["Phone", (row) => party(row.phone, row.direction === "inbound" ? row.to : row.from)],
      ["Way", (row) => (row.direction === "inbound" ? "←" : "→")],
      ["Remote", (row) => party(row.remote, row.direction === "inbound" ? row.from : row.to)],
      ["Time", (row) => duration(row.up ?? row.age), "number"],
      ["Media", streams],
      ["Call-ID", (row) => long(row.call_id)],
      ["", ladderButton],
    ],
  },
  mappings: {
    empty: "No mappings.",
    filters: true,
    columns: [
      ["Kind", (row) => `${shown(row.kind)}/${shown(row.transport)}`],
      ["Internal", (row) => address(row.internal)],
      ["External", (row) => address(row.external)],
      ["Remote", (row) => address(row.remote)],
      ["Ends", (row) => duration(row.expires_in), "number"],
      ["State", (row) => tag(row.state)],
      ["Source", (row) => shown(row.source)],
      ["Call-ID", (row) => long(row.call_id)],
    ],
  },
  registrations: {
    empty: "No phone is registered.",
    columns: [
      ["Phone", (row) => address(row.phone)],
      ["User", (row) => long(row.user), "", "user"],
      ["Registrar", (row) => address(row.registrar)],
      ["Mapping", (row) => address(row.mapping)],
      ["Ends", (row) => duration(row.expires_in), "number"],
    ],
  },
  reasons: {
    empty: "Nothing has been counted.",
    limit: 1000,
    columns: [
      ["Reason", (row) => shown(row.reason)],
      ["Count", (row) => count(row.count), "number"],
      ["Counted by", (row) => shown(row.counted_by)],
    ],
    isOff: (row) => row.count === 0,
  },
};

const LIMITS = [
  ["Limit", (row) => shown(row.limit)],
  ["Whose", (row) => address(row.of ?? "all")],
  ["Used", meter],
  ["", (row) => `${count(row.used)} of ${count(row.max)} ${shown(row.counts)}`, "number"],
];

const KERNEL = [
  ["", (row) => shown(row.item), "key"],
  ["", (row) => `${amount(row.value)}${row.max === null ? "" : ` of ${count(row.max)}`}`],
];

const FIGURES = ["uptime", "calls", "registrations", "mappings"];

const FACTS = [["", (row) => shown(row[0]), "key"], ["", (row) => shown(row[1])]];

function meter(row) {
  const made = element("meter");
  Object.assign(made, { max: row.max, high: row.max * 0.8, value: row.used });
  return made;
}

function table(columns, rows, isOff = () => false) {
  const used = columns.filter(([, , , key]) => !key || rows.some((row) => key in row));
  const heads = used.map(([name, , className]) => element("th", className, name));
  const lines = rows.map((row) => {
    const cells = used.map(([name, cell, className]) => {
      const made = element("td", className, cell(row));
      made.dataset.name = name;
      return made;
    });
    return element("tr", isOff(row) ? "off" : "", ...cells);
  });
  const made = element("table", "", element("tbody", "", ...lines));
  if (used.some(([name]) => name)) made.prepend(element("thead", "", element("tr", "", ...heads)));
  return element("div", "wide", made);
}

async function ask(what, query = {}) {
  const response = await fetch(`/api/${what}?${new URLSearchParams(query)}`);
  if (response.status === 404) return { rows: [], has_more: false };
  if (!response.ok) throw new Error((await response.text()).trim());
  return response.json();
}

let offset = 0;
let drawn = "";
let turn = 0;

const viewName = () => {
  const name = location.hash.slice(1);
  return name in VIEWS || name === "health" ? name : "calls";
};

async function refresh() {
  const mine = ++turn;
  let trouble = "";
  try {
    showStatus((await ask("status")).rows[0] ?? {});
    const content = await read(viewName());
    if (mine === turn) draw(content);
  } catch (error) {
    trouble = error.message;
    if (error instanceof TypeError) showState("bad", "no answer");
  }
  if (mine !== turn) return;
  byId("note").hidden = !trouble;
  byId("note").textContent = trouble && `What stands here is not up to date: ${shown(trouble)}`;
}

async function read(name) {
  if (name === "health") {
    const parts = await Promise.all(["status", "limits", "kernel", "upstream"].map((each) => ask(each)));
    return { name, parts: parts.map((part) => part.rows) };
  }
  const { filters, limit = PAGE } = VIEWS[name];
  const query = { offset, limit };
  if (filters) {
    for (const [key, value] of new FormData(byId("filters"))) if (value.trim()) query[key] = value.trim();
  }
  return { name, ...(await ask(name, query)) };
}

function showState(className, text) {
  [byId("state").className, byId("state").textContent] = [className, text];
}

function showStatus(row) {
  if (row.is_behind) showState("bad", "kernel behind");
  else if (row.faults?.length) showState("bad", row.faults.join(", "));
  else if (row.draining) showState("warn", "draining");
  else showState("good", "in service");
  const figures = [
    ["up", duration(row.uptime)],
    ...FIGURES.slice(1).map((key) => [key, count(row[key])]),
  ];
  byId("figures").replaceChildren(
    ...figures.map(([name, value]) =>
      element("div", "", element("dt", "", name), element("dd", "", value))),
  );
}

// Drawing anew would take away what the reader has selected, or where the keyboard is.
function draw(content) {
  const text = JSON.stringify([content, offset]);
  if (text === drawn || getSelection().type === "Range") return;
  drawn = text;
  const key = document.activeElement?.dataset.key;
  byId("view").replaceChildren(...(content.parts ? health(content.parts) : rowsOf(content)));
  if (key !== undefined) {
    [...byId("view").querySelectorAll("button")].find((each) => each.dataset.key === key)?.focus();
  }
  byId("pages").hidden = content.parts !== undefined || (!content.has_more && !offset);
  byId("earlier").disabled = !offset;
  byId("later").disabled = !content.has_more;
  byId("place").textContent = content.rows ? `${offset + 1}–${offset + content.rows.length}` : "";
}

function rowsOf({ name, rows }) {
  const view = VIEWS[name];
  if (!rows.length) return [element("p", "wide empty", view.empty)];
  return [table(view.columns, rows, view.isOff)];
}

function health([status, limits, kernel, upstream]) {
  const facts = (rows) => rows.flatMap((row) => Object.entries(row).map(fact));
  return [
    ["Gateway", FACTS, facts(status).filter(([name]) => !FIGURES.includes(name))],
    ["Kernel", KERNEL, kernel],
    ["Limits", LIMITS, limits],
    ["Upstream", FACTS, facts(upstream)],
  ]
    .filter(([, , rows]) => rows.length)
    .flatMap(([name, columns, rows]) => [element("h2", "", name), table(columns, rows)]);
}

function fact([key, value]) {
  const name = key.replaceAll("_", " ");
  if (typeof value === "boolean") return [name, value ? "yes" : "no"];
  if (Array.isArray(value)) return [name, value.join(", ") || "–"];
  if (typeof value === "object" && value !== null) {
    return [name, Object.entries(value).map(([k, v]) => `${k} ${v}`).join(", ") || "–"];
  }
  return [name, value];
}

function showLadder(callId) {
  const path = `/ladder.svg?${new URLSearchParams({ call_id: callId })}`;
  const picture = byId("ladder-picture");
  byId("ladder").hidden = false;
  byId("ladder-link").href = path;
  picture.alt = `There is no ladder of ${shown(callId)}: its messages are no longer kept.`;
  picture.src = `${path}&at=${Date.now()}`; // another address, for else it is not drawn anew
  byId("ladder").scrollIntoView({ block: "nearest" });
}

function open() {
  offset = 0;
  drawn = "";
  byId("view").replaceChildren();
  const name = viewName();
  for (const link of document.querySelectorAll("nav a")) {
    const isHere = link.hash === `#${name}`;
    link.toggleAttribute("aria-current", isHere);
    if (isHere) link.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  byId("filters").hidden = !VIEWS[name]?.filters;
  if (name !== "calls") byId("ladder").hidden = true;
  refresh();
}

function turnPage(by) {
  offset = Math.max(0, offset + by);
  refresh();
}

addEventListener("hashchange", open);
byId("earlier").addEventListener("click", () => turnPage(-PAGE));
byId("later").addEventListener("click", () => turnPage(PAGE));
byId("ladder-close").addEventListener("click", () => { byId("ladder").hidden = true; });
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("filters").addEventListener("input", () => { offset = 0; refresh(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
setInterval(() => { if (!document.hidden) refresh(); }, INTERVAL);
open();
