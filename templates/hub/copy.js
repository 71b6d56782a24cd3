for (const code of document.querySelectorAll("aside pre code")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "soft copy";
  button.textContent = "Copy";
  button.addEventListener("click", () => {
    getSelection().selectAllChildren(code);
    button.textContent = document.execCommand("copy") ? "Copied" : "Press Ctrl+C";
  });
  code.parentElement.after(button);
}
