// Building the page: elements, icons and a few helpers around them.
// Data only ever enters as text nodes and attributes, never as markup. No state here.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. `on…` properties are listeners, `testid` is `data-testid`, `data` is the dataset;
 * null, undefined and false are left out, of properties and of children alike.
 */
export function h(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else if (name === "testid") node.dataset.testid = value;
    else if (name === "data") setData(node, value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...present(children));
  return node;
}

/** Replaces everything inside `node`. */
export function fill(node, ...children) {
  node.replaceChildren(...present(children));
  return node;
}

/**
 * Makes the children of `node` match `items` ({key, signature, build}), in order. A child whose
 * signature is unchanged stays the same node, so focus, pictures and motion survive an update.
 * Answers the nodes that are new in place (not replacements).
 */
export function reconcile(node, items) {
  const known = new Map(Array.from(node.children, (child) => [child.dataset.key, child]));
  const added = [];
  let place = node.firstElementChild;
  for (const { key, signature, build } of items) {
    let child = known.get(key);
    if (child?.signature !== signature) {
      const fresh = build();
      fresh.dataset.key = key;
      fresh.signature = signature;
      if (child) {
        if (place === child) place = fresh;
        child.replaceWith(fresh);
      } else {
        added.push(fresh);
      }
      child = fresh;
    }
    known.delete(key);
    if (child === place) place = place.nextElementSibling;
    else node.insertBefore(child, place);
  }
  for (const gone of known.values()) gone.remove();
  return added;
}

function present(children) {
  return children.flat().filter((child) => child !== null && child !== undefined && child !== false);
}

function setData(node, values) {
  for (const [name, value] of Object.entries(values)) {
    if (value !== undefined && value !== null) node.dataset[name] = String(value);
  }
}

// Drawn on a 24 × 24 grid, stroked with the text's colour.
const ICONS = {
  back: ["M15 5l-7 7 7 7"],
  more: ["M12 5.5v.01", "M12 12v.01", "M12 18.5v.01"],
  send: ["M12 19V5", "M6 11l6-6 6 6"],
  picture: ["M4.5 5h15a1.5 1.5 0 0 1 1.5 1.5v11a1.5 1.5 0 0 1-1.5 1.5h-15A1.5 1.5 0 0 1 3 17.5v-11A1.5 1.5 0 0 1 4.5 5z", "M3.5 17l5-5 4 4 3-3 5 4.5", "M15.5 9.5v.01"],
  search: ["M11 4.5a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13z", "M16 16l4.5 4.5"],
  close: ["M6 6l12 12", "M18 6L6 18"],
  chats: ["M5 5h14a2 2 0 0 1 2 2v8a2 2 0 0 1-2 2h-7l-5 4v-4H5a2 2 0 0 1-2-2V7a2 2 0 0 1 2-2z"],
  explore: ["M4 10l1.5-5h13L20 10", "M4 10a2.66 2.66 0 0 0 5.33 0 2.66 2.66 0 0 0 5.34 0A2.66 2.66 0 0 0 20 10", "M5.5 13.5V20h13v-6.5"],
  lock: ["M6.5 11h11v8.5h-11z", "M8.5 11V8a3.5 3.5 0 0 1 7 0v3"],
  plane: ["M10.5 13.5L3.5 11l-1 -1 1-1 8 .5 4.5-5c1-1 2.8-1.3 3.5-.6s.4 2.5-.6 3.5l-5 4.5 .5 8-1 1-1-1-2.4-6.5-3 3v2l-1.2 1.2-1.3-3-3-1.3L4.7 14h2z"],
  reply: ["M9 6L4 11l5 5", "M4 11h9a7 7 0 0 1 7 7v.5"],
  edit: ["M4 20l1-4L16 5a2.1 2.1 0 0 1 3 3L8 19z", "M14 7l3 3"],
  trash: ["M5 7h14", "M10 7V4.5h4V7", "M6.5 7l1 12.5h9l1-12.5", "M10.5 11v5", "M13.5 11v5"],
  copy: ["M9 9h10v11H9z", "M5 15V4h10"],
  archive: ["M4 5h16v4H4z", "M5.5 9v10h13V9", "M10 13h4"],
  mute: ["M6.5 10a5.5 5.5 0 0 1 8.8-4.4", "M17.5 11c0 4 1.5 5 1.5 5.5H8", "M6.5 11.5c-.2 3-1.5 4.5-1.5 5h.5", "M10.5 19.5h3", "M4 4l16 16"],
  bell: ["M6.5 10a5.5 5.5 0 0 1 11 0c0 5 1.5 6 1.5 6.5H5c0-.5 1.5-1.5 1.5-6.5z", "M10.5 19.5h3"],
  block: ["M12 3.5a8.5 8.5 0 1 1 0 17 8.5 8.5 0 0 1 0-17z", "M6 6l12 12"],
  retry: ["M19.5 12a7.5 7.5 0 1 1-2.2-5.3L19.5 9", "M19.5 4.5V9H15"],
  down: ["M6 10l6 6 6-6"],
  clock: ["M12 4a8 8 0 1 1 0 16 8 8 0 0 1 0-16z", "M12 8v4.5l3 1.5"],
  alert: ["M12 3.5a8.5 8.5 0 1 1 0 17 8.5 8.5 0 0 1 0-17z", "M12 8v5", "M12 16v.01"],
  smile: ["M12 3.5a8.5 8.5 0 1 1 0 17 8.5 8.5 0 0 1 0-17z", "M8.5 14a4 4 0 0 0 7 0", "M9 9.5v.01", "M15 9.5v.01"],
  file: ["M6 3.5h8l4 4v13H6z", "M14 3.5v4h4"],
  right: ["M9 5l7 7-7 7"],
  tick: ["M5 12.5l4.5 4.5L19 7.5"],
};

/** One of the line icons above; decoration, so hidden from screen readers. */
export function icon(name) {
  const svg = svgElement("svg", { viewBox: "0 0 24 24", class: `icon icon-${name}`, "aria-hidden": "true" });
  for (const path of ICONS[name] ?? []) svg.append(svgElement("path", { d: path }));
  return svg;
}

/** An SVG element with attributes. */
export function svgElement(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

/** A round button that shows only an icon. */
export function iconButton(name, label, onclick, properties = {}) {
  return h("button", { type: "button", ...properties, class: `icon-button ${properties.class ?? ""}`, "aria-label": label, title: label, onclick }, icon(name));
}

/** The address if a browser may follow it: http(s) or a path of this origin; else null. */
export function safeUrl(url) {
  if (typeof url !== "string" || url === "") return null;
  try {
    const parsed = new URL(url, location.origin);
    return ["http:", "https:", "blob:"].includes(parsed.protocol) ? url : null;
  } catch {
    return null;
  }
}

/** Calls `action` once things have been quiet for `delay_ms`. */
export function debounce(delay_ms, action) {
  let timer;
  const later = (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...values), delay_ms);
  };
  later.cancel = () => clearTimeout(timer);
  return later;
}

/** Calls `action` once before the next frame is drawn, however often it is asked to. */
export function eachFrame(action) {
  let isDue = false;
  return () => {
    if (isDue) return;
    isDue = true;
    requestAnimationFrame(() => {
      isDue = false;
      action();
    });
  };
}

/** A random identifier; `randomUUID` is missing where the page is not served over https or localhost. */
export function randomId() {
  if (crypto.randomUUID) return crypto.randomUUID();
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
