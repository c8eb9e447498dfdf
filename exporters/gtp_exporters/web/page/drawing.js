// Draws which patches stay, which leave and where they merge, as report.html does.

const PIXELS = 224; // a panel's longer side, at least, in device pixels

export function toCanvas({ width, height, data }) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  for (let from = 0, to = 0; from < data.length; from += 3, to += 4) {
    image.data.set([data[from], data[from + 1], data[from + 2], 255], to);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

// Split the ids that leave, one after the other, by layer: [{layer, before, after, gone, leaving, into}].
export function panelsOf(propagated, receivers, numProp, tokens) {
  const panels = [];
  let start = 0;
  numProp.forEach((count, layer) => {
    if (!count) return;
    const end = start + count;
    const before = tokens - start;
    const into = receivers ? receivers.slice(start, end) : null;
    panels.push({ layer, before, after: before - count, gone: propagated.slice(0, start), leaving: propagated.slice(start, end), into });
    start = end;
  });
  return panels;
}

function panelCanvas(picture, panel, [rows, columns], colours) {
  const scale = Math.max(1, Math.ceil(PIXELS / Math.max(picture.width, picture.height)));
  const canvas = document.createElement("canvas");
  canvas.width = picture.width * scale;
  canvas.height = picture.height * scale;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  const [width, height] = [canvas.width / columns, canvas.height / rows];
  const patches = (ids, colour, opacity) => {
    context.fillStyle = colour;
    context.globalAlpha = opacity;
    for (const id of ids) {
      if (id >= 0 && id < rows * columns) context.fillRect((id % columns) * width, Math.floor(id / columns) * height, width, height);
    }
    context.globalAlpha = 1;
  };
  const middle = (id) => [((id % columns) + 0.5) * width, (Math.floor(id / columns) + 0.5) * height];
  patches(panel.gone, colours.gone, 0.94);
  patches(panel.leaving, colours.leave, 0.6);
  context.strokeStyle = context.fillStyle = colours.leave;
  context.lineWidth = height / 9;
  panel.leaving.forEach((id, at) => {
    const receiver = panel.into?.[at] ?? -1;
    if (receiver < 0 || receiver >= rows * columns) return; // the class token is no patch
    const [from, to] = [middle(id), middle(receiver)];
    context.beginPath();
    context.moveTo(...from);
    context.lineTo(...to);
    context.stroke();
    context.beginPath();
    context.arc(...from, height / 6, 0, 2 * Math.PI);
    context.fill();
  });
  return canvas;
}

// Fill an element with one figure for the image and one for each layer that removes tokens.
export function drawPanels(place, image, panels, grid) {
  const style = getComputedStyle(document.documentElement);
  const colours = { gone: style.getPropertyValue("--gone").trim(), leave: style.getPropertyValue("--leave").trim() };
  const picture = toCanvas(image);
  const whole = { gone: [], leaving: [], into: null };
  const figures = [figure(panelCanvas(picture, whole, grid, colours), "what the model sees")];
  for (const panel of panels) {
    const canvas = panelCanvas(picture, panel, grid, colours);
    figures.push(figure(canvas, `layer ${panel.layer}: ${panel.before} → ${panel.after}`));
  }
  place.replaceChildren(...figures);
}

function figure(canvas, text) {
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", text);
  const caption = document.createElement("figcaption");
  caption.textContent = text;
  const element = document.createElement("figure");
  element.append(canvas, caption);
  return element;
}
