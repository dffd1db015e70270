// The products of the marketplace, as the main API lists them: where a conversation begins.
// On the owner's phone the same products are their own listings.

import { h } from "../dom.js";
import { perDay, productPicture } from "../parts.js";

export class ExploreScreen {
  constructor(phone) {
    this.phone = phone;
    const isOwner = phone.role === "owner";
    this.element = h(
      "div",
      { class: "view explore-view" },
      h("header", { class: "root-bar tall" }, h("h2", {}, isOwner ? "Your listings" : "What do you need?"), h("p", { class: "muted" }, isOwner ? "Tap one to see who asked about it." : "Borrow it from somebody nearby.")),
      h("div", { class: "scroller" }, h("ul", { class: "products" }, ...phone.products.map((product) => h("li", {}, this.#card(product))))),
    );
  }

  #card(product) {
    return h(
      "button",
      { type: "button", class: "product", testid: "product", data: { productId: product.id }, onclick: () => this.#open(product) },
      productPicture(product, "product-picture"),
      h("span", { class: "product-lines" }, h("strong", {}, product.title), perDay(product)),
    );
  }

  #open(product) {
    const { phone } = this;
    const conversation = phone.session.inbox.find(product.id, phone.peer.id);
    const first = phone.peer.name.split(" ")[0];
    const label = phone.role === "owner" ? (conversation ? `Chat with ${first}` : null) : conversation ? `Continue with ${first}` : `Message ${first}`;
    const close = phone.sheet(
      product.title,
      productPicture(product, "sheet-picture"),
      h("div", { class: "sheet-text" }, h("h3", {}, product.title), perDay(product), h("p", {}, product.description)),
      label
        ? h("button", { type: "button", class: "primary", testid: "message-owner", onclick: () => (close(), phone.openProduct(product)) }, label)
        : h("p", { class: "muted centred" }, "Nobody has asked about this one yet."),
    );
  }
}
