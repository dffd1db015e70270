// Search in the messages of one conversation or of all of them, hits marked as the service says.

import { debounce, fill, h, icon } from "../dom.js";
import { listTime } from "../format.js";
import { avatar, topBar } from "../parts.js";

export class SearchScreen {
  #asked = 0;

  constructor(phone, conversation) {
    this.phone = phone;
    this.conversation = conversation;
    this.results = h("ul", { class: "hits", "aria-label": "Found messages" });
    this.state = h("p", { class: "muted centred", role: "status" });
    const search = debounce(180, () => this.#search());
    this.input = h("input", {
      type: "search",
      testid: "search-input",
      "aria-label": "Search messages",
      placeholder: conversation ? `Search with ${conversation.other_user.name}` : "Search messages",
      autocomplete: "off",
      enterkeyhint: "search",
      oninput: search,
    });
    this.element = h(
      "div",
      { class: "view search-view", onkeydown: (event) => event.key === "Escape" && phone.back() },
      topBar(phone, h("label", { class: "search-field" }, icon("search"), this.input)),
      h("div", { class: "scroller" }, this.state, this.results),
    );
  }

  shown() {
    this.input.focus({ preventScroll: true });
  }

  destroy() {
    this.#asked += 1;
  }

  async #search() {
    const query = this.input.value.trim();
    const asked = ++this.#asked;
    if (query === "") {
      fill(this.results);
      this.state.textContent = "";
      return;
    }
    const { session } = this.phone;
    const done = await session.attempt("search", async () => {
      const hits = await session.api.search(query, this.conversation?.id);
      // A slower answer to an older question says nothing any more.
      if (asked !== this.#asked) return;
      fill(this.results, ...hits.map((hit) => this.#hit(hit)));
      this.state.textContent = hits.length === 0 ? "Nothing found." : "";
    });
    if (!done && !session.can("search")) this.phone.back();
  }

  #hit(hit) {
    const { phone } = this;
    const conversation = phone.session.inbox.get(hit.conversation_id);
    const isOwn = hit.sender_id === phone.session.me.id;
    const sender = isOwn ? "You" : (conversation?.other_user.name ?? hit.sender?.name ?? "");
    const open = () => conversation && phone.openConversation(conversation, { jumpTo: hit.id });
    return h(
      "li",
      {},
      h(
        "button",
        { type: "button", class: "hit", testid: "search-hit", data: { messageId: hit.id }, onclick: open },
        avatar(isOwn ? phone.session.me : conversation?.other_user, "s"),
        h(
          "span",
          { class: "lines" },
          h("span", { class: "line" }, h("strong", {}, sender), h("time", {}, listTime(hit.created_at))),
          conversation?.product && h("span", { class: "subject" }, conversation.product.title),
          h("span", { class: "hit-text" }, ...marked(hit.content, hit.highlight)),
        ),
      ),
    );
  }
}

/** The text with its matches in `mark`; offsets count code points, not UTF-16 units. */
export function marked(text, highlight = []) {
  const points = Array.from(text);
  const parts = [];
  // Long texts are shown from shortly before the first match.
  let at = Math.max(0, (highlight[0]?.start ?? 0) - 40);
  if (at > 0) parts.push("…");
  for (const { start, length } of highlight) {
    if (start < at) continue;
    parts.push(points.slice(at, start).join(""), h("mark", {}, points.slice(start, start + length).join("")));
    at = start + length;
  }
  parts.push(points.slice(at).join(""));
  return parts;
}
