// Small pieces that several screens show: ticks, avatars, product pictures, prices, the top bar.

import { fill, h, icon, iconButton, safeUrl, svgElement } from "./dom.js";
import { price } from "./format.js";

/** The delivery state of an own message; `status` is sending, failed, sent, delivered or read. */
export function tick(status) {
  const label = { sending: "Sending", failed: "Not sent", sent: "Sent", delivered: "Delivered", read: "Read" }[status];
  const holder = h("span", { class: `tick tick-${status}`, role: "img", "aria-label": label, title: label, testid: "tick", data: { status } });
  if (status === "sending") return fill(holder, icon("clock"));
  if (status === "failed") return fill(holder, icon("alert"));
  const svg = svgElement("svg", { viewBox: "0 0 20 12", "aria-hidden": "true" });
  svg.append(svgElement("path", { d: "M1.5 6.5l3.5 3.5L13 2" }));
  if (status !== "sent") svg.append(svgElement("path", { d: "M9.5 9.5l.7 .5L18.5 2", class: "second" }));
  return fill(holder, svg);
}

/** A person's picture, or their initial where there is none. */
export function avatar(user, size = "m", status) {
  const url = safeUrl(user?.avatar_url ?? user?.avatar);
  return h(
    "span",
    { class: `avatar avatar-${size}` },
    url ? h("img", { src: url, alt: "", loading: "lazy" }) : h("span", { class: "initial" }, (user?.name ?? "?").slice(0, 1)),
    status && h("span", { class: `dot dot-${status}` }),
  );
}

/** A product's picture, or a plain tile where there is none. */
export function productPicture(product, className) {
  const url = safeUrl(product?.thumbnail_url ?? product?.thumbnail);
  return url
    ? h("img", { class: className, src: url, alt: product?.title ?? "" })
    : h("span", { class: `${className} no-picture`, "aria-hidden": "true" }, icon("chats"));
}

/** €12 a day */
export function perDay(product) {
  const amount = price(product?.price_per_day);
  return amount ? h("span", { class: "per-day" }, h("b", {}, amount), " a day") : null;
}

/** The bar on top of a pushed screen. */
export function topBar(phone, ...content) {
  return h("header", { class: "top-bar" }, iconButton("back", "Back", () => phone.back(), { testid: "back" }), ...content);
}
