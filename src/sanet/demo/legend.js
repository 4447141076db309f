element.addEventListener("change", () => {
  const boxes = [...element.querySelectorAll("input[type=checkbox]")];
  const rows = props.value.rows.map((row, index) => ({ ...row, checked: boxes[index].checked ? "checked" : "" }));
  props.value = { rows, hidden: rows.filter((row) => !row.checked).map((row) => row.name) };
  trigger("input");
});
