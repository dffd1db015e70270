// Where one writes: text, a picture, a reply, an edit, and the news to the other that one types.

import { fill, h, icon, iconButton } from "./dom.js";
import { preview } from "./format.js";

const MAX_CHARACTERS = 5_000;
// Well below the 6 s after which the service lets typing end.
const TYPING_REPEAT_MS = 3_000;
const TYPING_IDLE_MS = 4_000;
const MAX_FILE_BYTES = 10 * 1024 * 1024;

export class Composer {
  #replyTo = null;
  #editing = null;
  #file = null;
  #toldTypingAt = 0;
  #idle = null;

  constructor(chat) {
    this.chat = chat;
    this.context = h("div", { class: "composer-context", hidden: true });
    this.input = h("textarea", {
      rows: "1",
      testid: "composer",
      placeholder: "Message",
      "aria-label": `Message to ${chat.target.otherUser.name}`,
      maxlength: MAX_CHARACTERS,
      enterkeyhint: "send",
      "data-autofocus": "",
      oninput: () => this.#typed(),
      onkeydown: (event) => this.#key(event),
      onpaste: (event) => this.#take(event.clipboardData?.files, event),
    });
    this.picker = h("input", { type: "file", accept: "image/*", hidden: true, testid: "file-input", onchange: () => (this.#take(this.picker.files), (this.picker.value = "")) });
    this.attach = iconButton("picture", "Send a picture", () => this.picker.click(), { testid: "attach" });
    this.sendButton = h("button", { type: "submit", class: "send", "aria-label": "Send", testid: "send", disabled: true }, icon("send"));
    this.element = h(
      "form",
      { class: "composer", onsubmit: (event) => (event.preventDefault(), this.#submit()) },
      this.context,
      h("div", { class: "composer-line" }, this.attach, this.picker, this.input, this.sendButton),
    );
    this.refreshFeatures();
  }

  refreshFeatures() {
    this.attach.hidden = !this.chat.phone.session.can("upload");
  }

  focus() {
    this.input.focus({ preventScroll: true });
  }

  /** Writes an answer to a message. */
  reply(message) {
    this.#editing = null;
    this.#replyTo = message;
    const isOwn = message.sender_id === this.chat.phone.session.me.id;
    this.#showContext("reply", isOwn ? "Yourself" : this.chat.target.otherUser.name, preview(message));
    this.focus();
  }

  /** Changes a message that was sent. */
  edit(message) {
    this.#replyTo = null;
    this.#editing = message;
    this.input.value = message.content;
    this.#showContext("edit", "Edit message", preview(message));
    this.#resize();
    this.focus();
  }

  /** A picture that was chosen, pasted or dropped; anything else is left alone. */
  takeFiles(files) {
    return this.#take(files);
  }

  /** Nobody types here any more. */
  leave() {
    this.#sayTyping(false);
  }

  #key(event) {
    if (event.key === "Escape" && !this.context.hidden) {
      event.stopPropagation();
      this.#clear(this.#editing !== null);
    }
    // Enter that ends the composition of a character must not send.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.#submit();
  }

  #take(files, event) {
    const file = Array.from(files ?? []).find(({ type }) => type.startsWith("image/"));
    const { phone } = this.chat;
    if (!file || !phone.session.can("upload")) return false;
    event?.preventDefault();
    if (file.size > MAX_FILE_BYTES) {
      phone.toast("Pictures can have up to 10 MB.");
      return true;
    }
    this.#dropFile();
    this.#file = { file, url: URL.createObjectURL(file) };
    this.#showContext("picture", "Picture", file.name, h("img", { src: this.#file.url, alt: "" }));
    this.#resize();
    this.focus();
    return true;
  }

  #typed() {
    this.#resize();
    clearTimeout(this.#idle);
    if (this.input.value.trim() === "" || this.#editing) return this.#sayTyping(false);
    this.#idle = setTimeout(() => this.#sayTyping(false), TYPING_IDLE_MS);
    if (Date.now() - this.#toldTypingAt > TYPING_REPEAT_MS) this.#sayTyping(true);
  }

  #sayTyping(is_typing) {
    clearTimeout(is_typing ? undefined : this.#idle);
    if (!is_typing && this.#toldTypingAt === 0) return;
    this.#toldTypingAt = is_typing ? Date.now() : 0;
    this.chat.phone.session.sayTyping(this.chat.target.conversationId, is_typing);
  }

  #submit() {
    const content = this.input.value.trim();
    if (content === "" && !this.#file) return;
    const { session } = this.chat.phone;
    this.#sayTyping(false);
    if (this.#editing) {
      if (content !== this.#editing.content) session.edit(this.#editing, content);
    } else {
      this.chat.send({ content, file: this.#file?.file ?? null, replyTo: this.#replyTo });
    }
    this.#clear(true);
  }

  #showContext(kind, title, line, picture = icon(kind)) {
    this.context.hidden = false;
    this.context.dataset.kind = kind;
    fill(this.context, picture, h("span", { class: "lines" }, h("strong", {}, title), h("span", {}, line)), iconButton("close", "Cancel", () => this.#clear(this.#editing !== null)));
    this.sendButton.setAttribute("aria-label", kind === "edit" ? "Save" : "Send");
    fill(this.sendButton, icon(kind === "edit" ? "tick" : "send"));
  }

  #clear(textToo) {
    this.#replyTo = this.#editing = null;
    this.#dropFile();
    this.context.hidden = true;
    fill(this.context);
    if (textToo) this.input.value = "";
    this.sendButton.setAttribute("aria-label", "Send");
    fill(this.sendButton, icon("send"));
    this.#resize();
    this.focus();
  }

  #dropFile() {
    if (this.#file) URL.revokeObjectURL(this.#file.url);
    this.#file = null;
  }

  #resize() {
    this.input.style.height = "auto";
    this.input.style.height = `${Math.min(this.input.scrollHeight, 128)}px`;
    this.sendButton.disabled = this.input.value.trim() === "" && !this.#file;
  }
}
