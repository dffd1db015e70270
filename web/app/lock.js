// A locked phone: its line is closed, and what it hears of comes by push, as on a real one. The demo
// has a stand-in for the push service; the service itself does not know the difference.

import { fill, h, icon, randomId, reconcile } from "./dom.js";
import { clockTime, count } from "./format.js";

/** The lock screen of one phone, which lies over everything else while it is locked. */
export class Lock {
  isLocked = false;
  #notifications = new Map();
  #badge = 0;
  #pushes = null;
  #switches = [];
  // Another one for each page: what pushes reach is this page.
  #token = `demo-phone:${randomId()}`;

  constructor(phone) {
    this.phone = phone;
    this.session = phone.session;
    this.#build();
    this.session.addEventListener("connection", () => this.#listen());
    setInterval(() => this.#showTime(), 1000);
  }

  /** Closes the line and shows the lock screen; from now on there are pushes. */
  lock() {
    if (this.isLocked) return;
    this.isLocked = true;
    this.#badge = this.session.inbox.unread;
    this.#notifications.clear();
    this.session.setLocked(true);
    this.#show();
    this.#listen();
  }

  /** Comes back: what was missed follows by `since`. */
  unlock() {
    if (!this.isLocked) return;
    this.isLocked = false;
    this.#stop();
    this.session.setLocked(false);
    this.#show();
  }

  async #open(notification) {
    this.unlock();
    // It may have begun while the phone was locked.
    await this.session.attempt("open", async () => this.phone.openConversation(await this.session.api.conversation(notification.conversationId)));
  }

  /** In flight mode no push comes either. */
  #listen() {
    const listens = this.isLocked && !this.session.api.grounded;
    if (!listens) return this.#pushes && this.#stop();
    if (this.#pushes) return;
    this.#pushes = new EventSource(`/demo/pushes?phone=${encodeURIComponent(this.#token)}`);
    // Registered again after each break: what nobody listens to, the service forgets.
    this.#pushes.onopen = () => this.session.attempt("devices", () => this.session.api.registerDevice(this.#token)).then((done) => (this.element.dataset.reachable = String(done && this.isLocked)));
    this.#pushes.onmessage = ({ data }) => this.#take(JSON.parse(data));
  }

  #stop() {
    this.#pushes?.close();
    this.#pushes = null;
    this.element.dataset.reachable = "false";
    if (!this.session.api.grounded) this.session.api.forgetDevice(this.#token).catch(() => {});
  }

  /** A push as FCM hands it to an app: shown, or only a new badge. */
  #take({ data, notification, android, apns }) {
    const { aps } = apns.payload;
    this.#badge = aps.badge;
    if (data.type === "badge") {
      const withdrawn = new Set(data.conversation_ids.split(","));
      for (const [tag, shown] of this.#notifications) if (withdrawn.has(String(shown.conversationId))) this.#notifications.delete(tag);
    } else {
      const { tag } = android.notification;
      const times = (this.#notifications.get(tag)?.times ?? 0) + 1;
      this.#notifications.delete(tag);
      this.#notifications.set(tag, { ...notification, subtitle: aps.alert.subtitle, conversationId: Number(data.conversation_id), at: Date.now(), times });
      this.element.classList.remove("buzzing");
      requestAnimationFrame(() => this.element.classList.add("buzzing"));
    }
    this.#show();
  }

  #build() {
    this.clock = h("time", { class: "lock-clock" });
    this.day = h("span", { class: "lock-day" });
    this.badge = h("span", { class: "badge", testid: "lock-badge", hidden: true });
    this.list = h("ul", { class: "lock-list", role: "log", "aria-label": `Notifications of ${this.session.me.name}` });
    this.element = h(
      "div",
      { class: "lock", testid: "lock-screen", hidden: true, data: { reachable: "false" } },
      h("div", { class: "lock-head" }, icon("lock"), this.day, this.clock),
      this.list,
      h(
        "div",
        { class: "lock-foot" },
        h("span", { class: "lock-app" }, h("img", { src: "/demo/pictures/logo.svg", alt: "Rented", width: 46, height: 46 }), this.badge),
        h("button", { type: "button", class: "lock-open", testid: "unlock", onclick: () => this.unlock() }, "Unlock"),
      ),
    );
  }

  /** A button outside the phone that locks and unlocks it. */
  switch(suffix = "") {
    const button = h(
      "button",
      { type: "button", class: "flight lock-switch", "aria-pressed": String(this.isLocked), "aria-label": `Lock ${this.session.me.name}'s phone`, title: "Lock the phone", testid: `lock-${this.phone.role}${suffix}`, onclick: () => (this.isLocked ? this.unlock() : this.lock()) },
      icon("lock"),
    );
    this.#switches.push(button);
    return button;
  }

  #show() {
    this.element.hidden = !this.isLocked;
    this.phone.element.dataset.locked = String(this.isLocked);
    for (const button of this.#switches) button.setAttribute("aria-pressed", String(this.isLocked));
    this.badge.hidden = this.#badge === 0;
    this.badge.textContent = count(this.#badge);
    this.badge.setAttribute("aria-label", `${this.#badge} unread`);
    this.#showTime();
    const newestFirst = Array.from(this.#notifications, ([tag, notification]) => ({ tag, notification })).reverse();
    reconcile(
      this.list,
      newestFirst.map(({ tag, notification }) => ({ key: tag, signature: `${notification.title} ${notification.body} ${notification.times}`, build: () => this.#card(tag, notification) })),
    );
  }

  #card(tag, notification) {
    const { title, subtitle, body, at, times, conversationId } = notification;
    return h(
      "li",
      {},
      h(
        "button",
        { type: "button", class: "notification", testid: "notification", data: { tag, conversationId, times }, onclick: () => this.#open(notification) },
        h("img", { src: "/demo/pictures/logo.svg", alt: "", width: 36, height: 36 }),
        h("span", { class: "lines" }, h("strong", {}, title), subtitle && h("span", { class: "subtitle" }, subtitle), h("span", { class: "body" }, body)),
        h("time", {}, clockTime(at)),
      ),
    );
  }

  #showTime() {
    if (!this.isLocked) return;
    this.clock.textContent = clockTime(Date.now());
    fill(this.day, new Date().toLocaleDateString(undefined, { weekday: "long", day: "numeric", month: "long" }));
  }
}
