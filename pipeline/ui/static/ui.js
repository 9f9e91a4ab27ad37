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
