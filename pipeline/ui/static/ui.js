// Keys: "/" goes to the search, "[" and "]" turn the pages of a list, Escape leaves a field.
addEventListener("keydown", (event) => {
  const typing = /^(input|textarea|select)$/i.test(document.activeElement?.tagName ?? "") || document.activeElement?.isContentEditable;
  if (event.key === "Escape" && typing) return document.activeElement.blur();
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") {
    const field = document.querySelector("input.search-words, .search-words input");
    event.preventDefault();
    if (field) field.focus();
    else document.querySelector("a.brand")?.click();
  }
  const turn = { "[": "prev", "]": "next" }[event.key];
  if (turn) document.querySelector(`a[rel=${turn}]`)?.click();
});

// What is pressed before the page is connected waits for it: NiceGUI sends the words typed until then and the press
// after them separately, in no order, and a search without words would be dropped.
const early = [];
function afterConnecting(event) {
  if ((window.did_handshake && !early.length) || !event.isTrusted || (event.type === "keydown" && event.key !== "Enter")) return;
  if (event.type === "click" && !event.target.closest?.("button, [role=button], .q-checkbox")) return;
  event.stopImmediatePropagation();
  event.preventDefault();
  if (early.push(event) === 1) pressAgain();
}
function pressAgain() {
  if (!window.did_handshake) return setTimeout(pressAgain, 20);
  setTimeout(() => { for (const event of early.splice(0)) event.target.dispatchEvent(new event.constructor(event.type, event)); }, 60);
}
for (const type of ["keydown", "click"]) addEventListener(type, afterConnecting, true);
