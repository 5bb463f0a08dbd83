// Pictures to take along.
import { save } from "./Table";

/** Lays canvases over each other, on the page's ground, and saves them. */
export function savePicture(name: string, layers: HTMLCanvasElement[], width: number, height: number): void {
  const whole = document.createElement("canvas");
  whole.width = width;
  whole.height = height;
  const context = whole.getContext("2d");
  if (!context) return;
  context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--paper").trim();
  context.fillRect(0, 0, width, height);
  for (const layer of layers) context.drawImage(layer, 0, 0, width, height);
  whole.toBlob((blob) => blob && save(name, blob, "image/png"));
}
