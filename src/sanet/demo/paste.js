() => document.addEventListener("paste", (event) => {
  const image = [...event.clipboardData.files].find((file) => file.type.startsWith("image/"));
  const input = document.querySelector("#upload input[type=file]");
  if (!image || !input) return;
  const files = new DataTransfer();
  files.items.add(image);
  input.files = files.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
})
