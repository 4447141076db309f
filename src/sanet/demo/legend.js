element.addEventListener("change", () => {
  const boxes = [...element.querySelectorAll("input[data-name]")];
  const hidden = boxes.filter((box) => !box.checked).map((box) => box.dataset.name);
  const rows = props.value.rows.map((row) => ({ ...row, checked: hidden.includes(row.name) ? "" : "checked" }));
  props.value = { rows, hidden };
  trigger("input");
});
