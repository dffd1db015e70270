// The list of conversations, newest first, with the archive behind one row.
// What a row looks like lives here; what is in it, in `session.js`.

import { eachFrame, fill, h, icon, iconButton, reconcile } from "../dom.js";
import { count, listTime, preview } from "../format.js";
import { conversationMenu, onLongPress } from "../actions.js";
import { avatar, productPicture, tick } from "../parts.js";

export class ListScreen {
  #showsArchive = false;

  constructor(phone) {
    this.phone = phone;
    const { session } = phone;
    this.items = h("ul", { class: "conversations", "aria-label": "Conversations" });
    this.empty = h("div", { class: "empty" });
    this.title = h("h2", {}, "Chats");
    this.searchButton = h("button", { type: "button", class: "search-field", testid: "open-search", onclick: () => phone.openSearch() }, icon("search"), h("span", {}, "Search messages"));
    this.archiveRow = h("button", { type: "button", class: "archive-row", testid: "archive-row", onclick: () => this.#toggleArchive() });
    this.element = h(
      "div",
      { class: "view list-view" },
      h("header", { class: "root-bar" }, avatar(session.me, "s"), this.title),
      h("div", { class: "scroller" }, this.searchButton, this.archiveRow, this.items, this.empty),
    );
    const refresh = eachFrame(() => this.#refresh());
    for (const type of ["list", "typing", "presence", "features"]) session.addEventListener(type, refresh);
    // "14:05" becomes "Yesterday" by itself.
    setInterval(refresh, 60_000);
    this.#refresh();
  }

  #toggleArchive() {
    this.#showsArchive = !this.#showsArchive;
    this.#refresh();
  }

  #refresh() {
    const { session, role } = this.phone;
    const archived = session.can("archive") ? session.inbox.list(true) : [];
    if (archived.length === 0) this.#showsArchive = false;
    const shown = this.#showsArchive ? archived : session.inbox.list(false);
    this.title.textContent = this.#showsArchive ? "Archived" : "Chats";
    this.searchButton.hidden = !session.can("search") || session.inbox.conversations.size === 0;
    this.archiveRow.hidden = archived.length === 0;
    fill(this.archiveRow, icon(this.#showsArchive ? "back" : "archive"), h("span", {}, this.#showsArchive ? "All chats" : "Archived"), !this.#showsArchive && h("span", { class: "muted" }, String(archived.length)));
    reconcile(this.items, shown.map((conversation) => this.#item(conversation)));
    this.empty.hidden = shown.length > 0 || !session.isReady;
    if (!this.empty.hidden && this.empty.childElementCount === 0) fill(this.empty, ...emptyState(this.phone, role));
  }

  #item(conversation) {
    const { session } = this.phone;
    const isTyping = session.inbox.isTyping(conversation.id);
    const { other_user, product, last_message, unread_count } = conversation;
    const time = listTime(conversation.last_message_at);
    const signature = JSON.stringify([other_user, product, last_message, unread_count, isTyping, time, conversation.is_muted, conversation.is_blocked]);
    return { key: String(conversation.id), signature, build: () => this.#row(conversation, isTyping, time) };
  }

  #row(conversation, isTyping, time) {
    const { phone } = this;
    const { id, other_user, product, last_message, unread_count } = conversation;
    const isOwn = last_message?.sender_id === phone.session.me.id;
    const line = isTyping
      ? h("span", { class: "typing-word" }, "typing…")
      : h("span", { class: "snippet" }, isOwn && !last_message.deleted_at && tick(last_message.status ?? "sent"), h("span", { class: last_message && !last_message.content && last_message.type === "text" ? "gone" : "" }, preview(last_message)));
    const row = h(
      "li",
      { class: unread_count > 0 ? "unread" : "" },
      h(
        "button",
        { type: "button", class: "conversation", testid: "conversation", data: { conversationId: id, productId: product?.id }, onclick: () => phone.openConversation(conversation) },
        h("span", { class: "thumb" }, product ? productPicture(product, "thumb-picture") : null, avatar(other_user, product ? "xs" : "m", other_user.status)),
        h(
          "span",
          { class: "lines" },
          h("span", { class: "line" }, h("strong", {}, other_user.name), conversation.is_muted && icon("mute"), h("time", {}, time)),
          product && h("span", { class: "subject" }, product.title),
          h("span", { class: "line" }, line, unread_count > 0 && h("span", { class: "badge", testid: "badge", "aria-label": `${unread_count} unread` }, count(unread_count))),
        ),
      ),
      iconButton("more", "Conversation actions", () => conversationMenu(phone, conversation), { class: "row-more", testid: "conversation-more" }),
    );
    onLongPress(row, () => conversationMenu(phone, conversation));
    return row;
  }
}

function emptyState(phone, role) {
  if (role === "owner") {
    return [h("div", { class: "empty-art" }, icon("chats")), h("strong", {}, "Nobody has asked yet"), h("p", {}, `As soon as ${phone.peer.name.split(" ")[0]} writes about one of your listings, it appears here.`)];
  }
  return [
    h("div", { class: "empty-art" }, icon("chats")),
    h("strong", {}, "No conversations yet"),
    h("p", {}, "Find something to rent and ask its owner."),
    h("button", { type: "button", class: "primary", onclick: () => phone.show("explore") }, "Explore products"),
  ];
}
