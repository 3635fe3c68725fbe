/** `<cf-copy for=ID>`: a button that copies the text of the element with that id. */

import { make } from "./core.js";

class CopyElement extends HTMLElement {
  connectedCallback() {
    if (this.firstElementChild) return;
    const what = this.getAttribute("label");
    const button = make("button", { type: "button", "aria-label": what ? `copy ${what}` : null }, "copy");
    const said = make("span", { class: "cf-unseen", role: "status" });
    button.addEventListener("click", async () => {
      const copied = await copy(document.getElementById(this.getAttribute("for") ?? ""));
      button.textContent = copied ? "copied" : "press Ctrl+C";
      said.textContent = copied ? "copied" : "selected: press Ctrl+C";
      setTimeout(() => {
        button.textContent = "copy";
        said.textContent = "";
      }, 2000);
    });
    this.append(button, said);
  }
}

/**
 * The clipboard is there on loopback and over TLS; elsewhere the text is selected, ready to be copied by hand.
 * @param {HTMLElement | null} from
 */
async function copy(from) {
  if (!from) return false;
  const field = from instanceof HTMLTextAreaElement || from instanceof HTMLInputElement ? from : null;
  try {
    await navigator.clipboard.writeText(field ? field.value : (from.textContent ?? ""));
    return true;
  } catch {
    if (field) field.select();
    else getSelection()?.selectAllChildren(from);
    return false;
  }
}

customElements.define("cf-copy", CopyElement);
