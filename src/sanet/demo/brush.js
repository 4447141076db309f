// Strokes over either pane's image, while a class to brush is chosen; the server draws them for good.
const WIDTH = 12; // of 960 pixels, as in visit.py
let canvas = null, pen, box, points;
const image = (event) =>
  element.querySelector(".on") && event.target.closest?.(".shown img");
const place = (event) =>
  [(event.pageX - box.left) / box.width, (event.pageY - box.top) / box.height].map((share) => Math.min(1, Math.max(0, share)));
const add = (event) => {
  points.push(place(event));
  const [x, y] = points.at(-1);
  pen.lineTo(x * box.width, y * box.height);
  pen.stroke();
};
document.addEventListener("pointerdown", (event) => {
  const shown = image(event);
  if (!shown || !event.isPrimary || event.button || points) return;
  // The image without the bars that are beside it in full screen.
  const frame = shown.getBoundingClientRect();
  const scale = Math.min(frame.width / shown.naturalWidth, frame.height / shown.naturalHeight);
  const [width, height] = [scale * shown.naturalWidth, scale * shown.naturalHeight];
  box = { width, height, left: frame.left + scrollX + (frame.width - width) / 2, top: frame.top + scrollY + (frame.height - height) / 2 };
  canvas?.remove();
  canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.style = `position: absolute; left: ${box.left}px; top: ${box.top}px; z-index: 9999; pointer-events: none`;
  document.body.append(canvas);
  pen = Object.assign(canvas.getContext("2d"), { strokeStyle: "#fffc", lineCap: "round", lineJoin: "round" });
  pen.lineWidth = (WIDTH * Math.max(width, height)) / 960;
  points = [];
  add(event);
  shown.addEventListener("load", () => canvas?.remove(), { once: true });
});
document.addEventListener("pointermove", (event) => points && event.isPrimary && points.length < 5000 && add(event));
for (const end of ["pointerup", "pointercancel"]) {
  document.addEventListener(end, (event) => {
    if (!points || !event.isPrimary) return;
    props.value = { ...props.value, stroke: points };
    points = null;
    trigger("input");
  });
}
for (const kind of ["click", "dragstart"]) {
  document.addEventListener(kind, (event) => image(event) && (event.stopPropagation(), event.preventDefault()), true);
}
