// One phone: its shell, its screens and how they follow one another. Everything it shows comes
// from its own `Session`; two phones on the page share nothing but the service.

import { fill, h, icon } from "./dom.js";
import { clockTime, count } from "./format.js";
import { Lock } from "./lock.js";
import { ChatScreen } from "./screens/chat.js";
import { ExploreScreen } from "./screens/explore.js";
import { ListScreen } from "./screens/list.js";
import { SearchScreen } from "./screens/search.js";

const TOAST_MS = 3_500;

export class Phone {
  #pushed = [];
  #toastTimer = null;
  #wasAway = false;

  /** `role` is renter or owner, `peer` the other person, `products` the main API's list. */
  constructor({ session, role, peer, products }) {
    this.session = session;
    this.role = role;
    this.peer = peer;
    this.products = products;
    this.#build();
    this.lock = new Lock(this);
    this.screen.append(this.lock.element);
    for (const type of ["unread", "list", "connection"]) session.addEventListener(type, () => this.#refresh());
    session.addEventListener("gone", ({ detail }) => this.#leave(detail.conversationId));
    session.addEventListener("notice", ({ detail }) => this.toast(detail.text));
    setInterval(() => this.#refresh(), 1000);
    this.show(role === "renter" ? "explore" : "chats");
    this.#refresh();
  }

  /** Switches between the two root screens, chats and explore. */
  show(name) {
    this.root = name;
    for (const [root, screen] of Object.entries(this.roots)) screen.element.hidden = root !== name;
    for (const tab of this.tabs.children) {
      if (tab.dataset.tab === name) tab.setAttribute("aria-current", "page");
      else tab.removeAttribute("aria-current");
    }
  }

  /** Opens a conversation, or the draft of one: `target` is {conversationId, otherUser, product}. */
  openChat(target, options = {}) {
    this.#push(new ChatScreen(this, target, options));
  }

  openConversation(conversation, options = {}) {
    const place = this.#pushed.findIndex((screen) => screen.target?.conversationId === conversation.id);
    if (place >= 0) {
      while (this.#pushed.length > place + 1) this.back();
      if (options.jumpTo) this.#pushed[place].jumpTo(options.jumpTo);
      return;
    }
    this.openChat({ conversationId: conversation.id, otherUser: conversation.other_user, product: conversation.product }, options);
  }

  /** The chat about a product: the conversation there is, or a draft of it. */
  openProduct(product) {
    const known = this.session.inbox.find(product.id, this.peer.id);
    if (known) this.openConversation(known);
    else this.openChat({ conversationId: null, otherUser: this.peer, product });
  }

  /** Search in one conversation, or in all of them. */
  openSearch(conversation) {
    this.#push(new SearchScreen(this, conversation));
  }

  /** Leaves the topmost pushed screen. */
  back() {
    const screen = this.#pushed.pop();
    if (!screen) return;
    screen.destroy();
    screen.element.classList.add("leaving");
    const done = () => screen.element.remove();
    screen.element.addEventListener("animationend", done, { once: true });
    setTimeout(done, 400);
    this.#arrange();
    (this.#pushed.at(-1) ?? this.roots[this.root]).element.querySelector("[data-autofocus]")?.focus();
  }

  /** Leaves every pushed screen. */
  home(root = this.root) {
    while (this.#pushed.length > 0) this.back();
    this.show(root);
  }

  /** A sentence at the bottom that goes away by itself. */
  toast(text) {
    clearTimeout(this.#toastTimer);
    this.toaster.textContent = text;
    this.toaster.classList.add("shown");
    this.#toastTimer = setTimeout(() => this.toaster.classList.remove("shown"), TOAST_MS);
  }

  /** A card that comes up from the bottom; answers the function that closes it. */
  sheet(label, ...content) {
    const back = document.activeElement;
    const close = () => {
      if (!layer.isConnected) return;
      layer.remove();
      this.views.inert = this.tabs.inert = false;
      if (back?.isConnected) back.focus({ preventScroll: true });
    };
    const layer = h(
      "div",
      { class: "sheet-layer", onclick: (event) => event.target === layer && close(), onkeydown: (event) => event.key === "Escape" && close() },
      h("div", { class: "sheet", role: "dialog", "aria-modal": "true", "aria-label": label, testid: "sheet", tabindex: "-1" }, h("span", { class: "grip" }), ...content),
    );
    this.screen.append(layer);
    this.views.inert = this.tabs.inert = true;
    layer.querySelector(".sheet").focus({ preventScroll: true });
    return close;
  }

  /** A sheet of actions: `{icon, label, action, isDangerous?, testid?}`; falsy ones are left out. */
  menu(label, actions, head = null) {
    const items = actions.filter(Boolean).map(({ icon: name, label: text, action, isDangerous, testid }) =>
      h(
        "button",
        { type: "button", class: `menu-item ${isDangerous ? "dangerous" : ""}`, testid, onclick: () => (close(), action()) },
        icon(name),
        h("span", {}, text),
      ),
    );
    const close = this.sheet(label, head, h("div", { class: "menu" }, ...items));
    return close;
  }

  /** A picture, as large as the phone. */
  lightbox(url, alt) {
    const close = this.sheet("Picture", h("button", { type: "button", class: "lightbox", testid: "lightbox", "aria-label": "Close picture", onclick: () => close() }, h("img", { src: url, alt }), icon("close")));
  }

  #build() {
    this.clock = h("time", { class: "clock" });
    this.signal = h("span", { class: "signal", "aria-hidden": "true" }, h("i"), h("i"), h("i"), h("i"));
    this.banner = h("div", { class: "banner", role: "status", testid: "banner", hidden: true });
    this.toaster = h("div", { class: "toast", role: "status", testid: "toast" });
    this.badge = h("span", { class: "badge", testid: "total-badge", hidden: true });
    this.roots = { chats: new ListScreen(this), explore: new ExploreScreen(this) };
    this.tabs = h(
      "nav",
      { class: "tabs", "aria-label": `Sections of ${this.session.me.name}'s phone` },
      this.#tab("explore", "explore", this.role === "owner" ? "Listings" : "Explore"),
      this.#tab("chats", "chats", "Chats", this.badge),
    );
    this.views = h("div", { class: "views" }, this.roots.chats.element, this.roots.explore.element);
    this.screen = h(
      "div",
      { class: "screen" },
      h("div", { class: "status-bar" }, this.clock, h("span", { class: "island", "aria-hidden": "true" }), h("span", { class: "status-icons" }, icon("plane"), this.signal, h("span", { class: "battery", "aria-hidden": "true" }))),
      this.banner,
      this.views,
      this.tabs,
      this.toaster,
    );
    this.element = h(
      "section",
      { class: "phone", "aria-label": `Phone of ${this.session.me.name}, the ${this.role}`, testid: `phone-${this.role}`, data: { role: this.role } },
      this.screen,
    );
  }

  #tab(name, iconName, label, badge) {
    return h(
      "button",
      { type: "button", data: { tab: name }, testid: `tab-${name}`, onclick: () => this.home(name) },
      h("span", { class: "tab-icon" }, icon(iconName), badge),
      h("span", {}, label),
    );
  }

  #push(screen) {
    this.#pushed.push(screen);
    screen.element.classList.add("pushed");
    this.views.append(screen.element);
    this.#arrange();
    screen.shown?.();
  }

  /** A conversation is no longer there: neither are the screens that show it. */
  #leave(conversationId) {
    const place = this.#pushed.findIndex((screen) => screen.target?.conversationId === conversationId);
    while (place >= 0 && this.#pushed.length > place) this.back();
  }

  #arrange() {
    const top = this.#pushed.at(-1);
    for (const screen of [...Object.values(this.roots), ...this.#pushed]) screen.element.inert = Boolean(top) && screen !== top;
    this.element.classList.toggle("deep", Boolean(top));
  }

  #refresh() {
    const { live, inbox } = this.session;
    const { unread } = inbox;
    this.clock.textContent = clockTime(Date.now());
    this.badge.hidden = unread === 0;
    this.badge.textContent = count(unread);
    this.badge.setAttribute("aria-label", `${unread} unread`);
    this.element.dataset.connection = live.state;
    this.#refreshBanner(live);
  }

  #refreshBanner({ state, retryAt }) {
    if (state === "online") {
      if (!this.#wasAway) return;
      this.#wasAway = false;
      this.#say("back", "Back online");
      setTimeout(() => !this.#wasAway && this.#hush(), 1_500);
      return;
    }
    // The very first connection is made before anybody could miss it.
    if (state === "connecting" && !this.#wasAway) return;
    this.#wasAway = true;
    if (state === "paused") return this.#say("paused", "Flight mode: messages wait here");
    const seconds = retryAt === null ? 0 : Math.ceil((retryAt - Date.now()) / 1000);
    const now = h("button", { type: "button", onclick: () => this.session.live.hurry() }, "Try now");
    this.#say("away", seconds > 1 ? `Reconnecting… next try in ${seconds} s` : "Reconnecting…", seconds > 1 && now);
  }

  #say(kind, text, ...more) {
    this.banner.hidden = false;
    this.banner.dataset.kind = kind;
    if (this.banner.firstChild?.textContent === text && this.banner.childElementCount === 1 + more.filter(Boolean).length) return;
    fill(this.banner, h("span", {}, text), ...more);
  }

  #hush() {
    this.banner.hidden = true;
    this.banner.dataset.kind = "";
  }
}
