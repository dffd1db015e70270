// Shows /openapi.json and /asyncapi.json. What is said is in them; here is only how it looks.
// Text from the documents enters as text nodes, never as markup.

const METHODS = ["get", "post", "put", "patch", "delete"];
const DIALECTS = [["plain", "Plain WebSocket"], ["socketIo", "Socket.IO"]];

start();

async function start() {
  chooseTheme();
  const status = document.getElementById("status");
  try {
    const [rest, live] = await Promise.all(["/openapi.json", "/asyncapi.json"].map(read));
    status.remove();
    show(rest, live);
  } catch (error) {
    status.className = "problem";
    status.textContent = `The documents could not be read: ${error.message}`;
  }
}

async function read(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path} answered ${answer.status}`);
  return answer.json();
}

function show(rest, live) {
  document.getElementById("version").textContent = `v${rest.info.version}`;
  const main = document.getElementById("content");
  const contents = document.getElementById("contents");
  main.append(
    h("h1", { id: "top" }, "The contract"),
    h("div", { class: "lead" }, ...prose(rest.info.description)),
    h("div", { class: "links" }, link("/openapi.json", "OpenAPI 3.1"), link("/asyncapi.json", "AsyncAPI 3")),
  );
  for (const tag of rest.tags) {
    const entries = operationsOf(rest, tag.name).map((one) => operationEntry(rest, one));
    section(main, contents, tag.name, [h("p", { class: "muted" }, ...inline(tag.description))], entries);
  }
  const dialects = DIALECTS.map(([key, title]) => h("p", {}, h("strong", {}, `${title}. `), ...inline(live.channels[key].description)));
  section(main, contents, "Live connections", [h("div", { class: "lead" }, ...prose(live.info.description), ...dialects)], []);
  const [received, sent] = eventsOf(live);
  section(main, contents, "Client → server", [], received.map((name) => eventEntry(live, name, true)));
  section(main, contents, "Server → client", [], sent.map((name) => eventEntry(live, name, false)));
  section(main, contents, "Error codes", [h("p", { class: "muted" }, "One catalogue for REST, acks and error events alike.")], [errorTable(rest["x-errors"])]);
  main.append(h("p", { class: "nothing", id: "nothing", hidden: true }, "Nothing matches."));
  watchFilter();
  watchPlace();
  openNamed();
  addEventListener("hashchange", openNamed);
}

function section(main, contents, title, before, entries) {
  const id = slug(title);
  main.append(h("section", { id, "data-section": "" }, h("h2", {}, title), ...before, ...entries));
  const items = entries.filter((entry) => entry.id).map((entry) => h("li", {}, link(`#${entry.id}`, entry.dataset.title)));
  contents.append(h("div", { "data-of": id }, h("h2", {}, link(`#${id}`, title)), h("ul", {}, ...items)));
}

function operationsOf(rest, tag) {
  return Object.entries(rest.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]?.tags.includes(tag)).map((method) => ({ path, method, operation: item[method] })),
  );
}

function operationEntry(rest, { path, method, operation }) {
  const inside = [];
  const security = operation.security ?? rest.security;
  const isOpen = security.length === 0;
  const access = isOpen ? "open to everybody" : security.some((way) => Object.keys(way).length === 0) ? "token optional" : "bearer token";
  inside.push(h("div", { class: "badges" }, badge(access), badge(operation.operationId)));
  if (operation.description) inside.push(...prose(operation.description));
  if (operation.parameters) {
    const rows = operation.parameters.map((one) => [
      [h("code", {}, one.name), one.required ? h("div", { class: "need" }, "required") : null],
      h("span", { class: "type" }, `${one.in} · ${typeName(rest, one.schema)}`),
      inline(one.description ?? ""),
    ]);
    inside.push(h("h4", {}, "Parameters"), table(["name", "in", "meaning"], rows));
  }
  const [kind, body] = Object.entries(operation.requestBody?.content ?? {})[0] ?? [];
  if (body) {
    inside.push(h("h4", {}, `Body · ${kind}${operation.requestBody.required ? "" : " · optional"}`), schemaView(rest, body.schema));
    if (body.example !== undefined) inside.push(code(body.example));
  }
  inside.push(h("h4", {}, "Answers"), answers(rest, operation.responses));
  return entry(operation.operationId, operation.summary, [method, method, path, operation.summary], inside);
}

function answers(rest, responses) {
  const tabs = Object.entries(responses).map(([status, answer]) => {
    const [kind, content] = Object.entries(answer.content ?? {})[0] ?? [];
    const headers = Object.keys(answer.headers ?? {});
    const parts = [...prose(answer.description)];
    if (headers.length > 0) parts.push(h("p", { class: "muted" }, "Headers: ", ...headers.flatMap((name, at) => [at ? ", " : "", h("code", {}, name)])));
    if (content && Number(status) < 400) parts.push(kind === "application/json" ? schemaView(rest, content.schema) : h("p", { class: "type" }, kind));
    const examples = content?.example ? [content.example] : Object.values(content?.examples ?? {}).slice(0, 1).map((one) => one.value);
    parts.push(...examples.map(code));
    return [status, parts];
  });
  return tabbed(tabs);
}

function eventsOf(live) {
  const names = { receive: new Set(), send: new Set() };
  for (const [key, operation] of Object.entries(live.operations)) names[operation.action].add(key.slice(key.indexOf(".") + 1));
  return [[...names.receive], [...names.send]];
}

function eventEntry(live, name, isReceived) {
  const messages = live.components.messages;
  const dialects = DIALECTS.filter(([key]) => messages[`${key}.${name}`]);
  const message = messages[`${dialects[0][0]}.${name}`];
  const inside = [...prose(message.summary)];
  const badges = [];
  if (message["x-stored"] === true) badges.push(badge("stored, carries event_seq"));
  if (dialects.length === 1) badges.push(badge(`${dialects[0][1]} only`));
  if (badges.length > 0) inside.push(h("div", { class: "badges" }, ...badges));
  if (message.description) inside.push(...prose(message.description));
  inside.push(h("h4", {}, "Data"), schemaView(live, message["x-data"]));
  const example = (key) => (message) => messages[`${key}.${message}`]?.examples[0].payload;
  const tabs = dialects.map(([key, title]) => [title, [code(example(key)(name))]]);
  inside.push(h("h4", {}, "On the wire"), tabbed(tabs));
  const ack = messages[`${dialects[0][0]}.${name}.ack`];
  if (ack) {
    const wire = dialects.map(([key, title]) => [title, [code(example(key)(`${name}.ack`))]]);
    inside.push(h("h4", {}, "Ack"), schemaView(live, ack["x-data"]), tabbed(wire));
  }
  if (message["x-codes"]) inside.push(h("h4", {}, "Refused with"), h("p", {}, ...message["x-codes"].flatMap((one) => [link("#error-codes", h("code", {}, one)), " "])));
  return entry(`event-${name}`, name, [isReceived ? "in" : "out", isReceived ? "client" : "server", name, firstSentence(message.summary)], inside);
}

function errorTable(errors) {
  const rows = errors.map((one) => [h("code", {}, one.code), String(one.status), one.retryable ? "yes" : "no", inline(one.meaning)]);
  return table(["code", "status", "retry", "meaning"], rows);
}

function entry(id, title, [kind, label, path, what], inside) {
  const summary = h("summary", {}, h("span", { class: `method ${kind}` }, label), h("span", { class: "path" }, path), h("span", { class: "what" }, what));
  const node = h("details", { class: "entry", id }, summary, h("div", { class: "inside" }, ...inside));
  node.dataset.title = title;
  node.dataset.text = node.textContent.toLowerCase();
  return node;
}

/** The fields of an object, however it is put together; types of its own open in place. */
function schemaView(doc, schema, depth = 0) {
  const found = resolve(doc, schema);
  if (found.oneOf && !found.properties) return h("div", {}, ...found.oneOf.map((one) => schemaView(doc, one, depth)));
  if (found.type === "array" && found.items) return h("div", {}, h("span", { class: "type" }, "a list of"), schemaView(doc, found.items, depth));
  const fields = Object.entries(found.properties ?? {});
  if (fields.length === 0) return h("p", { class: "type" }, typeName(doc, schema));
  const required = new Set(found.required ?? []);
  const rows = fields.map(([name, field]) => {
    const inner = depth < 4 ? objectIn(doc, field) : null;
    const meaning = [h("p", {}, ...inline(field.description ?? resolve(doc, field).description ?? ""))];
    if (inner) meaning.push(h("details", { class: "type-of" }, h("summary", {}, "fields"), schemaView(doc, inner, depth + 1)));
    return [
      [h("code", {}, name), required.has(name) ? null : h("div", { class: "muted type" }, "may be absent")],
      h("span", { class: "type" }, typeName(doc, field)),
      meaning,
    ];
  });
  return table(["field", "type", "meaning"], rows);
}

function objectIn(doc, schema) {
  const found = resolve(doc, schema);
  if (found.properties) return found;
  if (found.items) return objectIn(doc, found.items);
  return (found.anyOf ?? []).map((one) => objectIn(doc, one)).find(Boolean) ?? null;
}

function resolve(doc, schema) {
  if (!schema?.$ref) return schema ?? {};
  return schema.$ref.slice(2).split("/").reduce((at, key) => at?.[key.replaceAll("~1", "/").replaceAll("~0", "~")], doc) ?? {};
}

function typeName(doc, schema) {
  if (schema === true || !schema) return "anything";
  if (schema.$ref) {
    const found = resolve(doc, schema);
    const name = schema.$ref.split("/").at(-1);
    return found.enum ? found.enum.map(String).join(" | ") : found.properties ? name : `${typeName(doc, found)} (${name})`;
  }
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map(String).join(" | ");
  const options = schema.anyOf ?? schema.oneOf;
  if (options && !schema.type) return options.map((one) => typeName(doc, one)).join(" | ");
  const types = [schema.type ?? "anything"].flat();
  let name = types.map((type) => (type === "array" ? `list of ${typeName(doc, schema.items)}` : type)).join(" | ");
  if (schema.format && schema.format !== "int64") name += ` ${schema.format}`;
  const bounds = [
    schema.minimum !== undefined && `≥ ${schema.minimum}`,
    schema.maxLength !== undefined && `≤ ${schema.maxLength} characters`,
    schema.maxItems !== undefined && `≤ ${schema.maxItems} items`,
    schema.default !== undefined && `default ${schema.default}`,
  ].filter(Boolean);
  return bounds.length > 0 ? `${name}, ${bounds.join(", ")}` : name;
}

function tabbed(tabs) {
  const panel = h("div", { class: "panel" });
  const buttons = tabs.map(([title, parts], at) => {
    const button = h("button", { type: "button", role: "tab" }, title);
    button.addEventListener("click", () => choose(at));
    button.parts = parts;
    return button;
  });
  const choose = (at) => {
    buttons.forEach((button, place) => button.setAttribute("aria-selected", String(place === at)));
    panel.replaceChildren(...buttons[at].parts);
  };
  if (buttons.length > 0) choose(0);
  return h("div", {}, h("div", { class: "tabs", role: "tablist" }, ...buttons), panel);
}

function table(heads, rows) {
  const head = h("tr", {}, ...heads.map((one) => h("th", { scope: "col" }, one)));
  const body = rows.map((row) => h("tr", {}, ...row.map((cell) => h("td", {}, ...[cell].flat()))));
  return h("div", { class: "table" }, h("table", {}, h("thead", {}, head), h("tbody", {}, ...body)));
}

function code(value) {
  const text = JSON.stringify(value, null, 2);
  const copy = h("button", { type: "button" }, "Copy");
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    copy.textContent = "Copied";
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  });
  return h("div", { class: "code" }, h("pre", {}, h("code", {}, ...coloured(text))), copy);
}

function coloured(text) {
  const parts = [];
  let last = 0;
  for (const found of text.matchAll(/("(?:[^"\\]|\\.)*")(\s*:)?|\b(?:true|false|null)\b|-?\b\d+(?:\.\d+)?\b/g)) {
    parts.push(text.slice(last, found.index));
    const [all, string, colon] = found;
    parts.push(h("span", { class: string ? (colon ? "k" : "s") : "n" }, string ?? all), colon ?? "");
    last = found.index + all.length;
  }
  return [...parts, text.slice(last)];
}

const firstSentence = (text) => /^[^.;:]*/.exec(text)[0].replaceAll("`", "");
const prose = (text) => text.split("\n\n").map((one) => h("p", {}, ...inline(one)));
const inline = (text) => text.split("`").map((part, at) => (at % 2 ? h("code", {}, part) : part));
const badge = (text) => h("span", { class: "badge" }, text);
const link = (href, ...children) => h("a", { href }, ...children);
const slug = (title) => title.toLowerCase().replaceAll(/[^a-z]+/g, "-").replaceAll(/^-|-$/g, "");

function h(tag, properties, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null && child !== ""));
  return node;
}

function watchFilter() {
  const input = document.getElementById("filter");
  input.addEventListener("input", () => filter(input.value.trim().toLowerCase()));
  addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== input && !event.metaKey && !event.ctrlKey) {
      event.preventDefault();
      input.focus();
    }
  });
}

function filter(words) {
  let shown = 0;
  for (const part of document.querySelectorAll("[data-section]")) {
    let here = 0;
    for (const one of part.querySelectorAll(":scope > .entry")) {
      one.hidden = words !== "" && !one.dataset.text.includes(words);
      const mark = document.querySelector(`nav a[href="#${CSS.escape(one.id)}"]`);
      if (mark) mark.parentElement.hidden = one.hidden;
      if (!one.hidden) here += 1;
    }
    const isText = part.querySelector(":scope > .entry") === null;
    part.hidden = words !== "" && (isText ? !part.textContent.toLowerCase().includes(words) : here === 0);
    document.querySelector(`[data-of="${part.id}"]`).hidden = part.hidden;
    if (!part.hidden) shown += 1;
  }
  document.getElementById("nothing").hidden = shown > 0;
}

/** Marks in the contents what is on screen. */
function watchPlace() {
  const marks = new Map([...document.querySelectorAll("nav a")].map((mark) => [mark.getAttribute("href").slice(1), mark]));
  const seen = new IntersectionObserver((changes) => {
    for (const { target, isIntersecting } of changes) marks.get(target.id)?.classList.toggle("here", isIntersecting);
  }, { rootMargin: "-80px 0px -70% 0px" });
  document.querySelectorAll(".entry").forEach((one) => seen.observe(one));
}

function openNamed() {
  const named = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (named instanceof HTMLDetailsElement) named.open = true;
  named?.scrollIntoView();
}

function chooseTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => localStorage.getItem("docs-theme");
  const apply = () => (document.documentElement.dataset.theme = chosen() ?? (dark.matches ? "dark" : "light"));
  dark.addEventListener("change", apply);
  document.getElementById("theme").addEventListener("click", () => {
    localStorage.setItem("docs-theme", document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    apply();
  });
  apply();
}
