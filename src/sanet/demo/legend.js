const boxes = () => [...element.querySelectorAll("input[type=checkbox]")];
element.addEventListener("change", () => {
  const checked = boxes().map((box) => box.checked);
  const rows = props.value.rows.map((row, index) => ({ ...row, checked: checked[index] ? "checked" : "" }));
  props.value = { rows, hidden: rows.filter((row) => !row.checked).map((row) => row.name) };
  trigger("input");
});
// A box that was clicked keeps its state where another class takes its row.
watch("value", () => boxes().forEach((box) => (box.checked = box.hasAttribute("checked"))));
