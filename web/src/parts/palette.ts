// Colours for canvases, which no style sheet reaches.
import { signal } from "@preact/signals";

const computed = () => getComputedStyle(document.documentElement);

/** The style of the page; another one when the system turns light or dark, which whatever is drawn follows. */
export const style = signal(computed());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  style.value = computed();
});

/** A colour of the style sheet; a component that takes it is shown anew when it is another. */
export function ink(name: string): string {
  return style.value.getPropertyValue(name).trim();
}
