// A button that copies a text, from a page on disk too.

import { h } from "./dom";

/** `what` names it for who looks for it in the page; `failed` is said where nothing may be copied. */
export function copyButton(what: string, text: () => string, label: string, failed: string): HTMLElement {
  const button = h("button", { type: "button", class: "small", "data-copy": what }, label);
  button.addEventListener("click", () => {
    const done = (ok: boolean) => {
      button.textContent = ok ? "Copied" : failed;
      setTimeout(() => (button.textContent = label), 2000);
    };
    copy(text()).then(done, () => done(false));
  });
  return button;
}

async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // a page from file:// has no clipboard of its own; the older way still works there
    const area = h("textarea", { class: "unseen", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    const ok = document.execCommand("copy");
    area.remove();
    return ok;
  }
}
