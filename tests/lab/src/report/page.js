"use strict";
// Shows the values under the pointer. The pictures are complete without it.
const tip = document.getElementById("tip");
for (const svg of document.querySelectorAll("svg[data-hover]")) {
  const plot = JSON.parse(svg.dataset.hover);
  const cursor = document.createElementNS(svg.namespaceURI, "line");
  cursor.setAttribute("class", "cursor");
  cursor.setAttribute("y1", plot.top);
  cursor.setAttribute("y2", plot.bottom);
  cursor.style.display = "none";
  svg.append(cursor);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * plot.width;
    const share = (x - plot.left) / (plot.right - plot.left);
    const since = share * (plot.x[1] - plot.x[0]);
    const index = Math.floor(since / plot.step);
    if (share < 0 || share > 1 || !plot.series.some((s) => s.values[index] !== undefined)) {
      return hide();
    }
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.style.display = "";
    tip.replaceChildren(((plot.x[0] + since) / 1000).toFixed(2) + " s");
    for (const series of plot.series) {
      const value = series.values[index];
      if (value === undefined || value === null) continue;
      const row = document.createElement("div");
      const swatch = document.createElement("i");
      swatch.className = series.class;
      row.append(swatch, series.name + " " + value.toFixed(1) + " " + plot.unit);
      tip.append(row);
    }
    tip.hidden = false;
    const right = event.pageX + 16 + tip.offsetWidth > document.documentElement.clientWidth;
    tip.style.left = event.pageX + (right ? -16 - tip.offsetWidth : 16) + "px";
    tip.style.top = event.pageY + 14 + "px";
  });
  const hide = () => {
    tip.hidden = true;
    cursor.style.display = "none";
  };
  svg.addEventListener("pointerleave", hide);
}
